import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { startProcess } from '../scripts/services/process.js'

/** How often a state check runs where nothing tells it of events, seconds. */
export const usualIntervalSeconds = 60

export interface StateAgentOptions {
  root: string
  /** For its configuration, log and state. */
  directory: string
  rabbitmqUrl: string
  libvirtUri: string
  handlers?: readonly string[]
}

/** Starts the built agent with one check of each guest's state that its interval alone would hardly ever run; resolves when it listens to events. */
export async function startStateAgent({ root, directory, rabbitmqUrl, libvirtUri, handlers = [] }: StateAgentOptions) {
  const configuration = join(directory, 'agent.d')
  const logFile = join(directory, 'agent.log')
  mkdirSync(configuration)
  const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
  const settings = {
    rabbitmq: rabbitmqUrl,
    client: { name: 'bench-events', address: '127.0.0.1', subscriptions: [], ...sockets },
    checks: {
      guest_state: {
        command: `check-kvm-state --per-guest --uri '${libvirtUri}'`,
        standalone: true,
        interval: 100 * 24 * 3600,
        ...(handlers.length > 0 && { handlers }),
      },
    },
  }
  writeFileSync(join(configuration, 'agent.json'), JSON.stringify(settings))
  const agent = await startProcess({
    name: 'sensu-kvm-agent',
    command: process.execPath,
    args: [join(root, 'dist/bin/sensu-kvm-agent'), '-d', configuration, '-l', logFile, '-L', 'debug'],
    env: { ...process.env, SENSU_KVM_STATE_DIR: join(directory, 'state') },
  })
  await untilLogged(logFile, 'listening to libvirt events')
  return agent
}

/** Resolves when the text is in the log file. */
export async function untilLogged(logFile: string, text: string): Promise<void> {
  while (!existsSync(logFile) || !readFileSync(logFile, 'utf8').includes(text)) await pause(20)
}
