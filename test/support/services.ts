import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { accessGuest, type Guest, type GuestOptions, startGuest } from '../../scripts/services/guest.js'
import { buildGuestImage, type GuestImage } from '../../scripts/services/guest-image.js'
import {
  accessLibvirtd,
  type Libvirtd,
  type LibvirtdAccess,
  type LibvirtdAddress,
  type LibvirtdOptions,
  startLibvirtd,
} from '../../scripts/services/libvirtd.js'
import { cacheDirectory } from '../../scripts/services/process.js'
import { type Rabbitmq, type RabbitmqOptions, startRabbitmq } from '../../scripts/services/rabbitmq.js'
import { type Redis, type RedisOptions, startRedis } from '../../scripts/services/redis.js'

/** The part of tap's test object that is used here. */
export interface Test {
  teardown(action: () => void | Promise<void>): void
}

/** The environment variable by which the test runner hands its services to the test files (JSON, `SharedServices`). */
export const sharedServicesVariable = 'SENSU_KVM_TEST_SERVICES'

/** The services that all files of one run share. */
export interface SharedServices {
  /** Where test files take note of which virtual host is taken. */
  directory: string
  rabbitmq: { host: string; port: number; user: string; password: string; vhosts: readonly string[] }
  libvirtd: LibvirtdAddress
  image: GuestImage
  guest: { name: string; uuid: string }
}

/** One virtual host of a broker, for one test file alone. */
export interface BrokerAccess {
  host: string
  port: number
  user: string
  password: string
  vhost: string
  /** `amqp://user:password@host:port/vhost`. */
  url: string
}

/** A guest that several tests look at, so none may harm it. */
export type HealthyGuest = Pick<Guest, 'name' | 'uuid' | 'pid' | 'state' | 'agent' | 'execute'>

/** Starts a Redis for this test alone. */
export async function redis(t: Test, options: RedisOptions = {}): Promise<Redis> {
  const server = await startRedis(options)
  t.teardown(() => server.stop())
  return server
}

/** A fresh virtual host, of the run's broker if there is one. For tests that stop or restart the broker: `ownRabbitmq`. */
export async function rabbitmq(t: Test): Promise<BrokerAccess> {
  const shared = sharedServices()
  if (shared === undefined) {
    const { host, port, user, password, vhosts } = await ownRabbitmq(t)
    return brokerAccess({ host, port, user, password, vhost: vhosts[0] ?? '/' })
  }
  const { host, port, user, password, vhosts } = shared.rabbitmq
  const vhost = vhosts.find((_, index) => claim(join(shared.directory, `vhost-${index}`)))
  if (vhost === undefined)
    throw new Error(`all ${vhosts.length} virtual hosts of this run are taken by other test files`)
  return brokerAccess({ host, port, user, password, vhost })
}

/** Starts a broker for this test alone (5 s). */
export async function ownRabbitmq(t: Test, options: RabbitmqOptions = {}): Promise<Rabbitmq> {
  const broker = await startRabbitmq(options)
  t.teardown(() => broker.stop())
  return broker
}

/** The run's libvirtd, else one for this test. Tests may add guests, but not disturb the daemon: for that `ownLibvirtd`. */
export async function libvirtd(t: Test): Promise<LibvirtdAccess> {
  const shared = sharedServices()
  return shared === undefined ? ownLibvirtd(t) : accessLibvirtd(shared.libvirtd)
}

/** Starts a libvirtd for this test alone. */
export async function ownLibvirtd(t: Test, options: LibvirtdOptions = {}): Promise<Libvirtd> {
  const daemon = await startLibvirtd({ cacheDirectory: cacheDirectory(), ...options })
  t.teardown(() => daemon.stop())
  return daemon
}

/** The run's healthy guest and the libvirtd it is in, else both for this test. Must not be harmed: for that `ownGuest`. */
export async function guest(t: Test): Promise<{ libvirtd: LibvirtdAccess; guest: HealthyGuest }> {
  const shared = sharedServices()
  const daemon = await libvirtd(t)
  if (shared === undefined) return { libvirtd: daemon, guest: await ownGuest(t, daemon, { name: 'healthy' }) }
  const { name, uuid } = shared.guest
  return { libvirtd: daemon, guest: accessGuest(daemon, { name, image: shared.image }, uuid) }
}

/** Starts a guest for this test alone, in the given libvirtd (5 s without hardware KVM). Its name must be unique there. */
export async function ownGuest(t: Test, daemon: LibvirtdAccess, options: Omit<GuestOptions, 'image'>): Promise<Guest> {
  const image = await guestImage()
  const started = await startGuest(daemon, { ...options, image })
  t.teardown(() => started.stop())
  return started
}

/** The guest image, built if it is not there yet. */
export async function guestImage(): Promise<GuestImage> {
  return sharedServices()?.image ?? buildGuestImage({ cacheDirectory: cacheDirectory() })
}

function brokerAccess(access: Omit<BrokerAccess, 'url'>): BrokerAccess {
  const { host, port, user, password, vhost } = access
  return { ...access, url: `amqp://${user}:${password}@${host}:${port}/${encodeURIComponent(vhost)}` }
}

/** Takes something for this process: only the first one can make the folder. */
function claim(path: string): boolean {
  try {
    mkdirSync(path)
    return true
  } catch {
    return false
  }
}

function sharedServices(): SharedServices | undefined {
  const text = process.env[sharedServicesVariable]
  return text === undefined || text === '' ? undefined : JSON.parse(text)
}
