import { realpathSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Logger } from '../sensu/log.js'
import { type AssembledService, runService, type ServiceContext } from '../sensu/service.js'
import { assembleAgent } from './assemble.js'
import { type Configuration, loadConfiguration } from './configuration.js'
import { type CheckExtensions, loadExtensions } from './extensions.js'
import { tidyAfterStart } from './heap.js'
import type { Programs } from './in-process.js'
import type { AgentSettings } from './settings.js'

/** What an extension has left open may keep the process so long after everything else has ended. */
const EXTENSION_LINGER_MS = 500

/**
 * Runs the agent with a command line (without the program's name) and the checks it can run inside itself. Never rejects: every failure is
 * told and leaves its exit status.
 */
export async function main(argv: readonly string[], programs: Programs): Promise<void> {
  let extensions: CheckExtensions = new Map()
  await runService<Configuration>(argv, {
    program: 'sensu-kvm-agent',
    service: () => 'client',
    load: loadConfiguration,
    prepare: async ({ extensionDirectory }, { settings }, log) => {
      extensions = await loadExtensions(extensionDirectory, settings, log)
    },
    assemble: context => assemble(context, programs, extensions),
  })
}

async function assemble(
  { configuration, log, environment, stop, onConnected }: ServiceContext<Configuration>,
  programs: Programs,
  extensions: CheckExtensions,
): Promise<AssembledService<Configuration>> {
  const { settings, own } = configuration
  if (extensions.size > 0) guardAgainst(extensions, log)
  const { agent, reload, release } = await assembleAgent({
    settings,
    own,
    log,
    environment: commandEnvironment(own, environment),
    extensions,
    programs,
    directory: dirname(realpathSync(process.argv[1] ?? '.')),
    startedSeconds: Math.floor(Date.now() / 1000 - process.uptime()),
    onFatal: stop,
    onConnected,
  })
  return {
    start: async () => {
      await agent.start()
      tidyAfterStart()
    },
    stop: async () => {
      await agent.stop()
      await release()
      if (extensions.size > 0) setTimeout(() => process.exit(), EXTENSION_LINGER_MS).unref()
    },
    reload: newer => reload(newer.settings, newer.own),
  }
}

/** What an extension raises outside its run would end the process. */
function guardAgainst(extensions: CheckExtensions, log: Logger): void {
  process.on('uncaughtException', error => {
    log.fatal('unexpected error - please address this immediately', {
      error: String(error),
      error_class: error instanceof Error ? error.constructor.name : typeof error,
      backtrace: error instanceof Error ? (error.stack ?? '').split('\n').slice(1) : [],
      extensions: [...extensions.keys()],
    })
  })
}

/** What commands, and checks inside this process, find in their environment. */
function commandEnvironment(own: AgentSettings, environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const uri = own['libvirt.uri']
  return { ...environment, ...(uri !== '' && { LIBVIRT_DEFAULT_URI: uri }) }
}
