import { statSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'

/**
 * What sh(1) does itself, or understands as part of its language; not `true` and `false`, which are the same as programs. Those of dash and
 * bash, either of which may be `sh`.
 */
const shellWords = new Set(
  `. : [ alias bg bind break builtin caller case cd chdir command compgen complete compopt continue coproc declare dirs disown do done echo elif
else enable esac eval exec exit export fc fg fi for function getopts hash help history if in jobs kill let local logout mapfile popd printf pushd
pwd read readarray readonly return select set shift shopt source suspend test then time times trap type typeset ulimit umask unalias
unset until wait while`.split(/\s+/),
)

const plain = /^[\w./:@%+,-]+(?:[ \t]+[\w./:@%+,=-]+)*[ \t]*$/

/** Words of a command of which a shell would only look up the first and run it with the others: `/opt/check -w 5`. Undefined for every other. */
export function plainWords(command: string): string[] | undefined {
  if (!plain.test(command)) return undefined
  const words = command.trimEnd().split(/[ \t]+/)
  return shellWords.has(words[0] ?? '') ? undefined : words
}

/** Where a shell finds the program; undefined when it does not, or when that depends on where it is run. */
export function locateProgram(name: string, path: string | undefined): string | undefined {
  if (name.includes('/')) return isAbsolute(name) ? name : undefined
  const directories = path?.split(':') ?? []
  if (!directories.every(isAbsolute)) return undefined
  return directories.map(directory => join(directory, name)).find(isProgram)
}

function isProgram(file: string): boolean {
  const found = statSync(file, { throwIfNoEntry: false })
  return found?.isFile() === true && (found.mode & 0o111) !== 0
}

/** The environment as a shell hands it on: with `PWD`, and without names that are none to it. */
export function shellEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const kept = Object.entries(env).filter(([name]) => /^[A-Za-z_]\w*$/.test(name))
  return { ...Object.fromEntries(kept), PWD: isHere(env['PWD']) ? env['PWD'] : process.cwd() }
}

function isHere(directory: string | undefined): boolean {
  if (directory === undefined || !isAbsolute(directory)) return false
  const [there, here] = [statSync(directory, { throwIfNoEntry: false }), statSync('.')]
  return there?.ino === here.ino && there.dev === here.dev
}
