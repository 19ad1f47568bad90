import t from 'tap'
import { parseHostCells } from '../../libvirt/host-topology.js'

/** Capabilities whose cells are these. */
const capabilities = (cells: string) =>
  `<capabilities><host><topology><cells num='1'>${cells}</cells></topology></host><guest/></capabilities>`

t.test('cells with their memory, CPUs and pages', async t => {
  const xml = capabilities(`
    <cell id='0'>
      <memory unit='KiB'>6121676</memory>
      <pages unit='KiB' size='4'>1530419</pages>
      <pages unit='KiB' size='2048'>12</pages>
      <cpus num='2'><cpu id='0' socket_id='0' core_id='0' siblings='0'/><cpu id='3' socket_id='0' core_id='1' siblings='3'/></cpus>
    </cell>
    <cell id='8'><memory unit='MiB'>2</memory><cpus num='0'></cpus></cell>`)
  t.same(await parseHostCells(xml), [
    {
      cell: 0,
      memoryBytes: 6121676 * 1024,
      cpus: [0, 3],
      pages: [
        { sizeBytes: 4096, count: 1530419 },
        { sizeBytes: 2097152, count: 12 },
      ],
    },
    { cell: 8, memoryBytes: 2 * 1024 ** 2, cpus: [], pages: [] },
  ])
})

t.test('what is not a number is left out, what is not there is empty', async t => {
  t.same(await parseHostCells('<capabilities><host/></capabilities>'), [])
  t.same(await parseHostCells(capabilities(`<cell id='x'><memory>5</memory></cell><cell id='1'/>`)), [])
  t.match(await parseHostCells(capabilities(`<cell id='1'><memory unit='furlong'>5</memory></cell>`)), [])
  t.match(await parseHostCells(capabilities(`<cell id='1'><memory>5</memory><pages size='4'>-1</pages></cell>`)), [
    { cell: 1, memoryBytes: 5120, pages: [] },
  ])
})

t.test('what is no XML of capabilities is an error that says so', async t => {
  for (const [xml, why] of [
    ['<domain/>', 'it has no <capabilities>'],
    ['<!DOCTYPE x><capabilities/>', 'it contains a document type'],
    ['<capabilities>', /./],
    [`<capabilities>${' '.repeat(1024 * 1024)}</capabilities>`, 'it is longer than 1048576 characters'],
  ] as const) {
    const message =
      typeof why === 'string' ? `the XML of capabilities from libvirt cannot be read: ${why}` : /cannot be read/
    await t.rejects(parseHostCells(xml), { name: 'LibvirtConnectionError', kind: 'protocol', message })
  }
})
