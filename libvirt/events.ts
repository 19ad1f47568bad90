import * as decode from './decode.js'
import type { HostEventName, HostEvents, LifecycleEventName } from './records.js'
import type { XdrReader } from './xdr.js'

/** How an event is asked for, and how its message is read. */
interface EventKind<Event> {
  /** virDomainEventID. */
  id: number
  /** Procedure number of the message the daemon sends. */
  procedure: number
  /** Reads what follows the callback id. */
  read: (reader: XdrReader) => Event
}

const lifecycleNames: readonly LifecycleEventName[] = [
  'defined',
  'undefined',
  'started',
  'suspended',
  'resumed',
  'stopped',
  'shutdown',
  'pmsuspended',
  'crashed',
]

const lifecycleDetails: readonly (readonly string[])[] = [
  ['added', 'updated', 'renamed', 'from snapshot'],
  ['removed', 'renamed'],
  ['booted', 'migrated', 'restored', 'from snapshot', 'wakeup'],
  [
    'paused',
    'migrated',
    'I/O error',
    'watchdog',
    'restored',
    'from snapshot',
    'API error',
    'post-copy',
    'post-copy failed',
  ],
  ['unpaused', 'migrated', 'from snapshot', 'post-copy', 'post-copy failed'],
  ['shutdown', 'destroyed', 'crashed', 'migrated', 'saved', 'failed', 'from snapshot'],
  ['finished', 'guest request', 'host request'],
  ['memory', 'disk'],
  ['panicked', 'crash loaded'],
]

const watchdogActions = ['none', 'pause', 'reset', 'poweroff', 'shutdown', 'debug', 'inject-nmi']
const ioErrorActions = ['none', 'pause', 'report']
const blockJobTypes = ['unknown', 'pull', 'copy', 'commit', 'active commit', 'backup']
const blockJobStatuses = ['completed', 'failed', 'canceled', 'ready']
const agentStates = [undefined, 'connected', 'disconnected'] as const
const agentReasons = ['unknown', 'domain started', 'channel event']
const metadataTypes = ['description', 'title', 'element']
const memoryFailureRecipients = ['hypervisor', 'guest']
const memoryFailureActions = ['ignore', 'inject', 'fatal', 'reset']

function named(names: readonly string[], code: number): string {
  return names[code] ?? 'unknown'
}

/** Every event a Host can deliver. Numbers are libvirt's ABI (virDomainEventID and the message's procedure). */
export const eventKinds: { [Name in HostEventName]: EventKind<HostEvents[Name]> } = {
  lifecycle: {
    id: 0,
    procedure: 318,
    read: reader => {
      const domain = decode.readDomain(reader)
      const eventCode = reader.i32()
      const detailCode = reader.i32()
      const detail = lifecycleDetails[eventCode]?.[detailCode] ?? 'unknown'
      return { domain, event: lifecycleNames[eventCode] ?? 'unknown', detail, eventCode, detailCode }
    },
  },
  reboot: { id: 1, procedure: 319, read: reader => ({ domain: decode.readDomain(reader) }) },
  watchdog: {
    id: 3,
    procedure: 321,
    read: reader => ({ domain: decode.readDomain(reader), action: named(watchdogActions, reader.i32()) }),
  },
  ioError: {
    id: 6,
    procedure: 324,
    read: reader => ({
      domain: decode.readDomain(reader),
      path: reader.string(),
      device: reader.string(),
      action: named(ioErrorActions, reader.i32()),
      reason: reader.string(),
    }),
  },
  controlError: { id: 7, procedure: 325, read: reader => ({ domain: decode.readDomain(reader) }) },
  blockJob: {
    id: 16,
    procedure: 339,
    read: reader => ({
      domain: decode.readDomain(reader),
      disk: reader.string(),
      type: named(blockJobTypes, reader.i32()),
      status: named(blockJobStatuses, reader.i32()),
    }),
  },
  diskChange: {
    id: 9,
    procedure: 327,
    read: reader => {
      const domain = decode.readDomain(reader)
      const oldPath = reader.optionalString()
      const newPath = reader.optionalString()
      const device = reader.string()
      reader.i32()
      return {
        domain,
        device,
        ...(oldPath === undefined ? {} : { oldPath }),
        ...(newPath === undefined ? {} : { newPath }),
      }
    },
  },
  balloonChange: {
    id: 13,
    procedure: 331,
    read: reader => ({ domain: decode.readDomain(reader), balloonBytes: reader.u64() * 1024 }),
  },
  deviceRemoved: {
    id: 15,
    procedure: 333,
    read: reader => ({ domain: decode.readDomain(reader), device: reader.string() }),
  },
  agentLifecycle: {
    id: 18,
    procedure: 348,
    read: reader => ({
      domain: decode.readDomain(reader),
      state: agentStates[reader.i32()] ?? 'unknown',
      reason: named(agentReasons, reader.i32()),
    }),
  },
  deviceAdded: {
    id: 19,
    procedure: 354,
    read: reader => ({ domain: decode.readDomain(reader), device: reader.string() }),
  },
  jobCompleted: {
    id: 21,
    procedure: 363,
    read: reader => ({
      domain: decode.readDomain(reader),
      job: decode.jobFromParams('completed', decode.readParams(reader, 64)),
    }),
  },
  metadataChange: {
    id: 23,
    procedure: 379,
    read: reader => {
      const domain = decode.readDomain(reader)
      const type = named(metadataTypes, reader.i32())
      const namespace = reader.optionalString()
      return { domain, type, ...(namespace === undefined ? {} : { namespace }) }
    },
  },
  blockThreshold: {
    id: 24,
    procedure: 385,
    read: reader => {
      const domain = decode.readDomain(reader)
      const device = reader.string()
      const path = reader.optionalString()
      const sizes = { thresholdBytes: reader.u64(), excessBytes: reader.u64() }
      return { domain, device, ...sizes, ...(path === undefined ? {} : { path }) }
    },
  },
  memoryFailure: {
    id: 25,
    procedure: 423,
    read: reader => {
      const domain = decode.readDomain(reader)
      const recipient = named(memoryFailureRecipients, reader.i32())
      const action = named(memoryFailureActions, reader.i32())
      reader.u32()
      return { domain, recipient, action }
    },
  },
}

/** All event names, in one order. */
export const eventNames = Object.keys(eventKinds) as HostEventName[]
