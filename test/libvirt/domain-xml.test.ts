import t from 'tap'
import { parseDomainXml } from '../../libvirt/domain-xml.js'

const guestXml = `<domain type='kvm' id='3'>
  <name>web&amp;1</name>
  <uuid>11111111-2222-3333-4444-555555555555</uuid>
  <title>Shop &lt;front&gt; &#x41;&#66;</title>
  <metadata>
    <sensu-kvm:limits xmlns:sensu-kvm="urn:sensu-kvm" owner="shop">
      <sensu-kvm:check-kvm-memory warning="85" critical="95"/>
      <sensu-kvm:check-kvm-disk-io warning="30"/>
    </sensu-kvm:limits>
    <other:thing xmlns:other="x"/>
  </metadata>
  <memoryBacking><hugepages/></memoryBacking>
  <on_crash>preserve</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none' error_policy='stop' rerror_policy='report'/>
      <source file='/images/a &amp; b.qcow2' index='2'/>
      <backingStore type='file' index='3'>
        <format type='qcow2'/>
        <source file='/images/base1.qcow2'/>
        <backingStore type='file'><source file='/images/base0.qcow2'/><backingStore/></backingStore>
      </backingStore>
      <target dev='vda' bus='virtio'/>
      <iotune><total_iops_sec>500</total_iops_sec><read_bytes_sec>0</read_bytes_sec></iotune>
    </disk>
    <disk type='network' device='lun'><source protocol='rbd' name='pool/image'/><target dev='sda' bus='scsi'/></disk>
    <disk type='volume'><source pool='default' volume='v1'/><target dev='vdb'/></disk>
    <disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk>
    <interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/><target dev='vnet0'/>
      <model type='virtio'/><link state='down'/></interface>
    <interface type='network'><source network='default' bridge='virbr0'/></interface>
    <interface type='bridge'><source bridge='ovs0'/><virtualport type='openvswitch'/></interface>
    <channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='disconnected'/></channel>
    <memballoon model='virtio'><stats period='10'/></memballoon>
    <panic model='isa'/>
  </devices>
</domain>`

t.test('what checks need is read from the XML, entities decoded', async t => {
  const config = await parseDomainXml(guestXml)
  t.same(config, {
    name: 'web&1',
    uuid: '11111111-2222-3333-4444-555555555555',
    title: 'Shop <front> AB',
    limits: {
      owner: 'shop',
      'check-kvm-memory.warning': '85',
      'check-kvm-memory.critical': '95',
      'check-kvm-disk-io.warning': '30',
    },
    onCrash: 'preserve',
    disks: [
      {
        target: 'vda',
        bus: 'virtio',
        device: 'disk',
        sourceType: 'file',
        source: '/images/a & b.qcow2',
        format: 'qcow2',
        cache: 'none',
        errorPolicy: 'stop',
        readErrorPolicy: 'report',
        readOnly: false,
        ioTune: { total_iops_sec: 500 },
        backingChain: ['/images/base1.qcow2', '/images/base0.qcow2'],
      },
      {
        target: 'sda',
        bus: 'scsi',
        device: 'lun',
        sourceType: 'network',
        source: 'pool/image',
        readOnly: false,
        ioTune: {},
        backingChain: [],
      },
      {
        target: 'vdb',
        device: 'disk',
        sourceType: 'volume',
        source: 'default/v1',
        readOnly: false,
        ioTune: {},
        backingChain: [],
      },
      {
        target: 'hdc',
        bus: 'ide',
        device: 'cdrom',
        sourceType: 'file',
        readOnly: true,
        ioTune: {},
        backingChain: [],
      },
    ],
    interfaces: [
      {
        type: 'bridge',
        macAddress: '52:54:00:00:00:01',
        source: 'br0',
        bridge: 'br0',
        device: 'vnet0',
        model: 'virtio',
        linkUp: false,
      },
      { type: 'network', source: 'virbr0', bridge: 'virbr0', linkUp: true },
      { type: 'bridge', source: 'ovs0', linkUp: true },
    ],
    agentChannel: { state: 'disconnected' },
    balloon: { model: 'virtio', statsPeriodSeconds: 10 },
    hugepages: true,
    panicDevice: true,
  })
})

t.test('a guest without devices has none of them', async t => {
  t.same(await parseDomainXml('<domain><name>x</name></domain>'), {
    name: 'x',
    limits: {},
    disks: [],
    interfaces: [],
    hugepages: false,
    panicDevice: false,
  })
  const none = await parseDomainXml(
    '<domain><name>x</name><devices><memballoon model="none"/><channel><target name="org.qemu.guest_agent.0"/></channel></devices></domain>',
  )
  t.equal(none.balloon, undefined)
  t.same(none.agentChannel, {}, 'a channel of a guest that is not running has no state')
})

t.test('a balloon without a period is told apart', async t => {
  const config = await parseDomainXml('<domain><devices><memballoon model="virtio"/></devices></domain>')
  t.same(config.balloon, { model: 'virtio' })
})

t.test('hostile XML is refused or harmless', async t => {
  const refused: [string, string, RegExp][] = [
    ['not XML', 'virsh: error', /cannot be read/],
    ['cut off', '<domain><name>x', /cannot be read/],
    ['another document', '<network/>', /no <domain>/],
    ['nothing', '', /cannot be read/],
    ['a document type', '<!DOCTYPE d [<!ENTITY a "x">]><domain><name>&a;</name></domain>', /document type/],
    ['oversized', `<domain>${' '.repeat(1024 * 1024)}</domain>`, /longer than/],
    ['bottomless', '<a>'.repeat(200_000), /cannot be read/],
  ]
  for (const [name, xml, message] of refused) {
    await t.rejects(parseDomainXml(xml), { name: 'LibvirtConnectionError', kind: 'protocol', message }, name)
  }
  const odd = await parseDomainXml(
    '<domain><name>&unknown;&#x110000;</name><metadata><sensu-kvm:limits __proto__="1" constructor="2"/></metadata><devices>text</devices></domain>',
  )
  t.equal(odd.name, '&unknown;&#x110000;')
  t.equal(({} as Record<string, unknown>)['1'], undefined)
  t.equal(odd.limits['constructor'], '2')
})
