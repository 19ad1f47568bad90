import { closeSync, lstatSync, openSync, readFileSync, readlinkSync, readSync, statSync } from 'node:fs'
import { dirname, isAbsolute, join } from 'node:path'

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

/** File systems of the machine itself. Others may hang, and with them whoever as much as looks at a file. */
const localFileSystems = new Set(
  'bcachefs btrfs erofs ext2 ext3 ext4 f2fs iso9660 jfs overlay ramfs rootfs squashfs tmpfs vfat xfs zfs'.split(' '),
)
/** How long what was found is believed, ms. */
const memoryMs = 10_000
const mostRemembered = 1000
const mostLinks = 40

/**
 * Finds programs where a shell would, by name or path: those that can be loaded without waiting for another machine, as whoever starts them waits
 * until they are.
 */
export class ProgramFinder {
  #found = new Map<string, string | undefined>()
  #mounts = new Map<string, string>()
  #readAt = Number.NEGATIVE_INFINITY

  /** Undefined when there is none, when it depends on the working directory, or when it, or what interprets it, is not on this machine. */
  find(name: string, path = ''): string | undefined {
    if (performance.now() - this.#readAt > memoryMs || this.#found.size > mostRemembered) this.#begin()
    const key = `${path}\n${name}`
    if (!this.#found.has(key)) this.#found.set(key, this.#look(name, path))
    return this.#found.get(key)
  }

  #begin(): void {
    this.#found.clear()
    this.#mounts = fileSystems(readFileSync('/proc/self/mountinfo', 'utf8'))
    this.#readAt = performance.now()
  }

  #look(name: string, path: string): string | undefined {
    const candidates = name.includes('/') ? [name] : path.split(':').map(directory => join(directory, name))
    try {
      for (const candidate of candidates) {
        if (!isAbsolute(candidate)) return undefined
        const file = this.#resolve(candidate)
        if (file !== undefined && isProgram(file)) return this.#isInterpretedHere(file) ? candidate : undefined
      }
    } catch {
      // what is elsewhere, cannot be read, or leads nowhere is left to the shell
    }
    return undefined
  }

  /** The file itself, behind all links; undefined when there is none. Throws when something on the way is not on this machine. */
  #resolve(path: string): string | undefined {
    let reached = '/'
    let left = path.split('/')
    for (let links = 0; left.length > 0; ) {
      const [part = '', ...others] = left
      left = others
      const next = part === '..' ? dirname(reached) : join(reached, part)
      const type = this.#mounts.get(next)
      if (type !== undefined && !localFileSystems.has(type)) throw new Error(`${next} is not on this machine`)
      const found = lstatSync(next, { throwIfNoEntry: false })
      if (found === undefined) return undefined
      if (!found.isSymbolicLink()) reached = next
      else if (++links > mostLinks) return undefined
      else {
        const target = readlinkSync(next)
        if (isAbsolute(target)) reached = '/'
        left = [...target.split('/'), ...others]
      }
    }
    return reached
  }

  /** Whether a script's `#!` names what is on this machine; what is no script is its own. */
  #isInterpretedHere(file: string): boolean {
    const [, interpreter] = /^#![ \t]*([^ \t\n]+)/.exec(beginning(file)) ?? []
    return interpreter === undefined || this.#resolve(interpreter) !== undefined
  }
}

function isProgram(file: string): boolean {
  const found = statSync(file, { throwIfNoEntry: false })
  return found?.isFile() === true && (found.mode & 0o111) !== 0
}

function beginning(file: string): string {
  const fd = openSync(file, 'r')
  try {
    const bytes = Buffer.alloc(256)
    return bytes.toString('latin1', 0, readSync(fd, bytes))
  } finally {
    closeSync(fd)
  }
}

/** Types of file systems by mount point, from mountinfo (proc(5)): of several at one point the last is the one that is seen. */
export function fileSystems(mountinfo: string): Map<string, string> {
  const lines = mountinfo.matchAll(/^\S+ \S+ \S+ \S+ (\S+) .*? - (\S+)/gm)
  const unescaped = (text: string) =>
    text.replace(/\\([0-7]{3})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 8)))
  return new Map(Array.from(lines, ([, point = '', type = '']) => [unescaped(point), type]))
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
