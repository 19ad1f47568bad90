import { ownProgram, Service } from './service.js'

/** How often a state check runs where nothing tells it of events, seconds. */
export const usualIntervalSeconds = 60

export interface StateAgentOptions {
  root: string
  rabbitmqUrl: string
  libvirtUri: string
  /** Of the check's results. */
  handlers?: readonly string[]
}

/** Starts the built agent with one check of each guest's state that its interval alone would hardly ever run; resolves when it listens to events. */
export async function startStateAgent({
  root,
  rabbitmqUrl,
  libvirtUri,
  handlers,
}: StateAgentOptions): Promise<Service> {
  const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
  const settings = {
    rabbitmq: rabbitmqUrl,
    client: { name: 'bench-events', address: '127.0.0.1', subscriptions: [], ...sockets },
    checks: {
      guest_state: {
        command: `check-kvm-state --per-guest --uri '${libvirtUri}'`,
        standalone: true,
        interval: 100 * 24 * 3600,
        ...(handlers && { handlers }),
      },
    },
  }
  const agent = await Service.start(ownProgram(root, 'sensu-kvm-agent'), settings, 'debug')
  await agent.untilLogged('listening to libvirt events')
  return agent
}
