import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import { run } from './process.js'

/** The parts of a small bootable Linux with qemu-guest-agent. Nothing writes to them: each guest gets its own disk copy. */
export interface GuestImage {
  directory: string
  kernel: string
  initrd: string
  /** An empty ext4 file system (qcow2, 256 MiB), which the guest mounts on /data. */
  disk: string
}

/** How a guest image is built. */
export interface GuestImageOptions {
  /** Built images are kept here, one folder for each set of package versions. */
  cacheDirectory: string
  /** Told what is being done, one line each. Silent when the image is there already. */
  report?: (message: string) => void
}

const packages = [
  ...['busybox-static', 'qemu-guest-agent', 'libc6', 'libglib2.0-0'],
  ...['libnuma1', 'libudev1', 'liburing2', 'libpcre2-8-0'],
]

const libraries = [
  ...['libc.so.6', 'libm.so.6', 'libudev.so.1', 'libnuma.so.1', 'liburing.so.2', 'libglib-2.0.so.0'],
  ...['libgmodule-2.0.so.0', 'libpcre2-8.so.0', 'libpthread.so.0', 'libdl.so.2'],
]

/** In the order in which they are loaded. virtio_ring must come before virtio; the panic device is in pvpanic-mmio. */
const modules = [
  ...['virtio_ring', 'virtio', 'virtio_pci_modern_dev', 'virtio_pci_legacy_dev', 'virtio_pci', 'virtio_blk'],
  ...['virtio_console', 'virtio_balloon', 'failover', 'net_failover', 'virtio_net', 'pvpanic', 'pvpanic-mmio'],
]

/** What apt knows of its mirrors; changes with `apt-get update`. Asking apt takes 2 s, so it is asked only after a change. */
const aptLists = '/var/lib/apt/lists'
const downloadTimeoutMs = 600_000
const diskBytes = 256 * 1024 * 1024

/** The guest's first process. Prints "INIT: ready" to the console when everything is up. */
const init = `#!/bin/busybox sh
export PATH=/bin:/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /run /tmp /data
mount -t devpts devpts /dev/pts
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
for word in $(cat /proc/cmdline); do
  case $word in guest_name=*) hostname "\${word#*=}" ;; esac
done
for module in /modules/*.ko; do insmod "$module"; done

# waits up to 5 s for a file, in steps of 0.1 s
wait_for() { tries=0; while [ ! -e "$1" ] && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries+1)); done; [ -e "$1" ]; }

wait_for /dev/vda && mount -t ext4 /dev/vda /data
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
  ip addr add 10.0.2.15/24 dev eth0
  ip link set eth0 up
  ip route add default via 10.0.2.2
fi

# udev, which is not here, would make a link with the name of each virtio port
wait_for /sys/class/virtio-ports
mkdir -p /dev/virtio-ports
for port in /sys/class/virtio-ports/*; do
  [ -s "$port/name" ] && ln -sf "/dev/\${port##*/}" "/dev/virtio-ports/$(cat "$port/name")"
done

trap 'poweroff -f' TERM
agent_port=/dev/virtio-ports/org.qemu.guest_agent.0
# it comes back when it ends, unless /tmp/no-agent exists
[ -e $agent_port ] && while :; do
  [ -e /tmp/no-agent ] || qemu-ga -m virtio-serial -p $agent_port -t /run -l /run/qemu-ga.log
  sleep 0.5
done &
echo "INIT: ready"
while :; do sleep 3600 & wait $!; done
`

/** What qemu-ga runs for guest-shutdown: `shutdown -h -P|-H|-r +0 TEXT`. */
const shutdown = `#!/bin/busybox sh
sync
umount /data
for argument in "$@"; do [ "$argument" = -r ] && exec reboot -f; done
exec poweroff -f
`

const release = `ID=tinyguest
NAME="Tiny Guest"
PRETTY_NAME="Tiny Guest (busybox)"
VERSION="1"
VERSION_ID="1"
`

/**
 * Builds the image from Debian packages, or finds it in the cache. Nothing is installed and no privilege is needed; apt-get,
 * dpkg, mkfs.ext4 and qemu-img are (lz4 makes the guest boot 0.5 s faster). Two builds at once do not disturb each other.
 */
export async function buildGuestImage(options: GuestImageOptions): Promise<GuestImage> {
  const report = options.report ?? (() => {})
  const recipe = digest([init, shutdown, release, ...packages, ...libraries, ...modules])
  const built = anyImage(options.cacheDirectory, recipe)
  if (built !== undefined && modifiedAt(built.directory) > modifiedAt(aptLists)) return built
  let names: string[]
  try {
    names = await findPackages(report)
  } catch (error) {
    if (built !== undefined) return built // better than none when apt cannot name the current versions
    throw error
  }
  const directory = join(options.cacheDirectory, `guest-${recipe}-${digest(names)}`)
  if (existsSync(directory)) return imageIn(directory)

  mkdirSync(options.cacheDirectory, { recursive: true })
  const work = mkdtempSync(join(options.cacheDirectory, 'building-'))
  try {
    await build(work, names, report)
    renameSync(join(work, 'image'), directory)
  } catch (error) {
    if (!existsSync(directory)) throw error // else another build was first
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  return imageIn(directory)
}

function imageIn(directory: string): GuestImage {
  return {
    directory,
    kernel: join(directory, 'vmlinuz'),
    initrd: join(directory, 'initrd.img'),
    disk: join(directory, 'disk.qcow2'),
  }
}

function digest(parts: readonly string[]): string {
  return createHash('sha256').update(parts.join('\0')).digest('hex').slice(0, 12)
}

/** An image of this recipe, whatever its packages' versions. */
function anyImage(cacheDirectory: string, recipe: string): GuestImage | undefined {
  if (!existsSync(cacheDirectory)) return undefined
  const names = readdirSync(cacheDirectory).filter(entry => entry.startsWith(`guest-${recipe}-`))
  const newest = names
    .map(name => join(cacheDirectory, name))
    .sort((a, b) => modifiedAt(a) - modifiedAt(b))
    .at(-1)
  return newest === undefined ? undefined : imageIn(newest)
}

/** Milliseconds since 1970; 0 for what is not there. */
function modifiedAt(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
}

const aptSettings = process.getuid?.() === 0 ? ['-o', 'APT::Sandbox::User=root'] : []

/** The packages' names with versions (`libc6=2.36-9`), as apt would download them now; refreshes apt's lists when it has none. */
async function findPackages(report: (message: string) => void): Promise<string[]> {
  try {
    return await askApt()
  } catch (error) {
    if (process.getuid?.() !== 0) throw error
    await refreshLists(report)
    return askApt()
  }
}

async function askApt(): Promise<string[]> {
  const { stdout } = await run('apt-cache', ['depends', '--important', 'linux-image-cloud-amd64'])
  const kernel = /Depends: (linux-image-[0-9]\S*)/.exec(stdout)?.[1]
  if (kernel === undefined) throw new Error('apt-cache names no kernel for linux-image-cloud-amd64')
  const uris = await run('apt-get', ['download', '--print-uris', ...aptSettings, kernel, ...packages])
  return uris.stdout
    .trim()
    .split('\n')
    .map(line => line.split(' ')[1] ?? '')
    .sort()
}

async function refreshLists(report: (message: string) => void): Promise<void> {
  report('guest image: apt-get update')
  await run('apt-get', ['-q', 'update'], { timeoutMs: downloadTimeoutMs })
}

/** Builds the image's files in `work/image`. `names` are file names of packages: `NAME_VERSION_ARCHITECTURE.deb`. */
async function build(work: string, names: readonly string[], report: (message: string) => void): Promise<void> {
  const image = join(work, 'image')
  const root = join(work, 'root')
  mkdirSync(image)
  mkdirSync(root)
  report(`guest image: downloading ${names.length} Debian packages`)
  await download(work, names, report)
  for (const file of readdirSync(work).filter(name => name.endsWith('.deb')))
    await run('dpkg-deb', ['--extract', join(work, file), root])
  report('guest image: packing kernel, initial RAM disk and disk')
  await unpackKernel(root, join(image, 'vmlinuz'))
  writeFileSync(join(image, 'initrd.img'), await promisify(gzip)(makeArchive(ramDiskEntries(root)), { level: 1 }))
  await makeDisk(work, join(image, 'disk.qcow2'))
}

async function download(work: string, names: readonly string[], report: (message: string) => void): Promise<void> {
  const wanted = names.map(name => name.split('_')[0] ?? '')
  const fetch = () =>
    run('apt-get', ['-q', 'download', ...aptSettings, ...wanted], { cwd: work, timeoutMs: downloadTimeoutMs })
  try {
    await fetch()
  } catch (error) {
    if (process.getuid?.() !== 0) throw error
    await refreshLists(report) // the mirror may have newer versions than apt's lists
    await fetch()
  }
}

/**
 * Debian's cloud kernel is packed with LZ4 (legacy frame) and can be started unpacked (PVH), which spares the emulated CPU
 * the unpacking. Without lz4 the packed kernel is taken.
 */
async function unpackKernel(root: string, target: string): Promise<void> {
  const name = readdirSync(join(root, 'boot')).find(file => file.startsWith('vmlinuz-'))
  if (name === undefined) throw new Error('the kernel package has no /boot/vmlinuz-*')
  const packed = readFileSync(join(root, 'boot', name))
  writeFileSync(target, packed)
  const start = packed.indexOf(Buffer.from([0x02, 0x21, 0x4c, 0x18]))
  if (start < 0) return
  const source = `${target}.lz4`
  const unpacked = `${target}.unpacked`
  writeFileSync(source, packed.subarray(start))
  try {
    await run('lz4', ['-dqf', source, unpacked]).catch(() => {}) // complains about what follows the packed part
    if (existsSync(unpacked) && readFileSync(unpacked).subarray(1, 4).toString() === 'ELF') renameSync(unpacked, target)
  } finally {
    rmSync(source, { force: true })
    rmSync(unpacked, { force: true })
  }
}

async function makeDisk(work: string, target: string): Promise<void> {
  const raw = join(work, 'disk.raw')
  writeFileSync(raw, '')
  truncateSync(raw, diskBytes)
  const env = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` }
  await run('mkfs.ext4', ['-q', '-F', '-L', 'data', raw], { env })
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, target])
}

/** One file, folder (no data) or symbolic link (data is the target) of the initial RAM disk. */
interface ArchiveEntry {
  path: string
  /** File type and permissions as in stat(2). */
  mode: number
  data: Buffer
}

const folderMode = 0o040755
const fileMode = 0o100644
const programMode = 0o100755

function ramDiskEntries(root: string): ArchiveEntry[] {
  const files = listFiles(root)
  const find = (name: string, below: RegExp) => {
    const path = files.find(file => basename(file) === name && below.test(file))
    return path === undefined ? undefined : readFileSync(path)
  }
  const need = (name: string, below: RegExp) => {
    const data = find(name, below)
    if (data === undefined) throw new Error(`the guest's packages hold no ${name}`)
    return data
  }
  const folders = ['bin', 'sbin', 'dev', 'proc', 'sys', 'etc', 'lib', 'lib/x86_64-linux-gnu', 'lib64', 'modules', 'var']
  const text = (path: string, content: string, mode = fileMode) => ({ path, mode, data: Buffer.from(content) })
  const program = (path: string, data: Buffer) => ({ path, mode: programMode, data })
  return [
    ...folders.map(path => ({ path, mode: folderMode, data: Buffer.alloc(0) })),
    text('init', init, programMode),
    text('sbin/shutdown', shutdown, programMode),
    text('etc/os-release', release),
    text('etc/passwd', 'root:x:0:0:root:/:/bin/sh\n'),
    text('etc/group', 'root:x:0:\n'),
    { path: 'var/run', mode: 0o120777, data: Buffer.from('/run') },
    program('bin/busybox', need('busybox', /\/bin\/busybox$/)),
    program('bin/qemu-ga', need('qemu-ga', /\/sbin\/qemu-ga$/)),
    program('lib64/ld-linux-x86-64.so.2', need('ld-linux-x86-64.so.2', /./)),
    ...libraries.map(name => program(`lib/x86_64-linux-gnu/${name}`, need(name, /./))),
    ...modules.flatMap((name, index) => {
      const data = find(`${name}.ko`, /\/modules\//) // absent: built in
      return data === undefined ? [] : [{ path: `modules/${index + 10}-${name}.ko`, mode: fileMode, data }]
    }),
  ]
}

/** Every file below a folder, then every link (an absolute one would lead to this host's file). */
function listFiles(folder: string): string[] {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true })
  return [...entries.filter(entry => entry.isFile()), ...entries.filter(entry => entry.isSymbolicLink())].map(entry =>
    join(entry.parentPath, entry.name),
  )
}

/** A cpio archive in the "newc" format that the kernel reads (its Documentation/driver-api/early-userspace/buffer-format). */
function makeArchive(entries: readonly ArchiveEntry[]): Buffer {
  const trailer = { path: 'TRAILER!!!', mode: 0, data: Buffer.alloc(0) }
  return Buffer.concat(
    [...entries, trailer].flatMap(({ path, mode, data }, index) => {
      const links = mode === folderMode ? 2 : 1
      const name = Buffer.from(`${path}\0`)
      const fields = [index + 1, mode, 0, 0, links, 0, data.length, 0, 0, 0, 0, name.length, 0]
      const header = Buffer.from(`070701${fields.map(field => field.toString(16).padStart(8, '0')).join('')}`)
      return [header, name, padding(header.length + name.length), data, padding(data.length)]
    }),
  )
}

/** Zeros that fill up to a multiple of four bytes. */
function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4)
}
