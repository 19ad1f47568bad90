import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { fileSystems, ProgramFinder, plainWords, shellEnvironment } from '../../sensu/plain-command.js'

t.test('words of a command that a shell would only run', async t => {
  const cases: [command: string, words: string[] | undefined][] = [
    ['true', ['true']],
    ['/opt/check-disk.rb -w 80 -c 90', ['/opt/check-disk.rb', '-w', '80', '-c', '90']],
    ['check --uri=qemu:///system  a@b\tc%d,e+f ', ['check', '--uri=qemu:///system', 'a@b', 'c%d,e+f']],
    ['', undefined],
    [' true', undefined],
    ['true\n', undefined],
    ['A=1 true', undefined],
    ['echo a', undefined],
    ['.', undefined],
    ['[ -e x ]', undefined],
    ['exec check', undefined],
    ...[
      'a b*',
      "a 'b'",
      'a "b"',
      'a $b',
      'a `b`',
      'a ~',
      'a;b',
      'a|b',
      'a&',
      'a>b',
      'a<b',
      'a (b)',
      'a {b}',
      'a #b',
      'a !b',
      'a\\b',
      'a ?',
      'ä',
    ].map((command): [string, undefined] => [command, undefined]),
  ]
  for (const [command, words] of cases) t.same(plainWords(command), words, command)
})

t.test('programs are found where a shell finds them', async t => {
  const directory = t.testdir()
  for (const name of ['one', 'two', 'three']) mkdirSync(`${directory}/${name}`)
  writeFileSync(`${directory}/one/x`, '', { mode: 0o644 })
  mkdirSync(`${directory}/two/x`)
  writeFileSync(`${directory}/three/file`, '#!/bin/sh\n', { mode: 0o755 })
  symlinkSync('../three/file', `${directory}/three/x`)
  symlinkSync('loop', `${directory}/three/loop`)
  const path = `${directory}/no:${directory}/one:${directory}/two:${directory}/three`
  const find = (name: string, where?: string) => new ProgramFinder().find(name, where)
  t.equal(find('x', path), `${directory}/three/x`, 'not what cannot be run')
  t.equal(find('y', path), undefined)
  t.equal(find('loop', path), undefined)
  t.equal(find(`${directory}/three/../three/x`), `${directory}/three/../three/x`, 'a path is taken as it is')
  t.equal(find('./x', path), undefined, 'where it is run decides')
  t.equal(find('y', `${path}:`), undefined, 'an empty entry is the working directory')
  t.equal(find('x'), undefined)
})

t.test('nothing is looked for on other machines, which may not answer', async t => {
  const directory = t.testdir()
  const [elsewhere] =
    [...fileSystems(readFileSync('/proc/self/mountinfo', 'utf8'))].find(([, type]) => type === 'proc') ?? []
  t.equal(elsewhere, '/proc', 'stands for one: it is not on the list')
  writeFileSync(`${directory}/script`, '#!/proc/self/exe\n', { mode: 0o755 })
  writeFileSync(`${directory}/own`, '#! /bin/sh -e\n', { mode: 0o755 })
  symlinkSync('/proc/self/exe', `${directory}/link`)
  const finder = new ProgramFinder()
  for (const name of ['script', 'link']) t.equal(finder.find(`${directory}/${name}`), undefined, name)
  t.equal(finder.find('/proc/self/exe'), undefined)
  t.equal(finder.find('sh', `/proc:${process.env['PATH']}`), undefined, 'nor behind it')
  t.equal(finder.find(`${directory}/own`), `${directory}/own`)
})

t.test('file systems by mount point', async t => {
  const text = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /mnt/a\\040b rw - nfs4 host:/x rw
31 22 0:31 / /opt rw shared:7 master:2 - ext4 /dev/sdb rw
32 31 0:32 / /opt rw - fuse.sshfs host: rw
`
  t.same(
    [...fileSystems(text)],
    [
      ['/', 'ext4'],
      ['/mnt/a b', 'nfs4'],
      ['/opt', 'fuse.sshfs'],
    ],
  )
})

t.test('the environment is the one a shell hands on', async t => {
  const { PWD: here } = shellEnvironment({})
  t.equal(here, process.cwd())
  const link = `${t.testdir()}/link`
  symlinkSync(process.cwd(), link)
  t.same(shellEnvironment({ A_1: 'x', 'b.c': 'y', '1d': 'z', PWD: link }), { A_1: 'x', PWD: link })
  t.same(shellEnvironment({ PWD: '/' }), { PWD: process.cwd() }, 'not when it is another directory')
})
