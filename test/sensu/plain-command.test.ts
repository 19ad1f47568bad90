import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { locateProgram, plainWords, shellEnvironment } from '../../sensu/plain-command.js'

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
  symlinkSync('file', `${directory}/three/x`)
  const path = `${directory}/no:${directory}/one:${directory}/two:${directory}/three`
  t.equal(locateProgram('x', path), `${directory}/three/x`, 'not what cannot be run')
  t.equal(locateProgram('y', path), undefined)
  t.equal(locateProgram('/no/such', path), '/no/such', 'a path is taken as it is')
  t.equal(locateProgram('./x', path), undefined, 'where it is run decides')
  t.equal(locateProgram('x', `${path}:`), undefined, 'an empty entry is the working directory')
  t.equal(locateProgram('x', undefined), undefined)
})

t.test('the environment is the one a shell hands on', async t => {
  const { PWD: here } = shellEnvironment({})
  t.equal(here, process.cwd())
  const link = `${t.testdir()}/link`
  symlinkSync(process.cwd(), link)
  t.same(shellEnvironment({ A_1: 'x', 'b.c': 'y', '1d': 'z', PWD: link }), { A_1: 'x', PWD: link })
  t.same(shellEnvironment({ PWD: '/' }), { PWD: process.cwd() }, 'not when it is another directory')
})
