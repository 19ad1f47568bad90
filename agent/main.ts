import { realpathSync, writeFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { Host } from '../libvirt/host.js'
import type { CheckProgram } from '../plugin/program.js'
import { parseServiceArguments, type ServiceOptions } from '../sensu/command-line.js'
import { isObject } from '../sensu/json-value.js'
import { Logger } from '../sensu/log.js'
import { redact } from '../sensu/redact.js'
import { printSettings, reportValidity, writeLoadedFiles } from '../sensu/settings.js'
import type { Settings } from '../sensu/types.js'
import { type AssembledAgent, assembleAgent } from './assemble.js'
import { isInBackground, settleInBackground, startInBackground } from './background.js'
import { loadConfiguration } from './configuration.js'
import { type CheckExtensions, loadExtensions } from './extensions.js'
import { ServiceManager } from './service-manager.js'
import type { AgentSettings } from './settings.js'

/** Exit statuses of Sensu 1.9's client. */
const FAILED = 1
const BAD_CONFIGURATION = 2

/** What an extension has left open may keep the process so long after everything else has ended. */
const EXTENSION_LINGER_MS = 500

/** What the process needs to run once its configuration is known to be right. */
interface Running {
  /** Where the configuration is, for reading it again. */
  options: ServiceOptions
  settings: Settings
  own: AgentSettings
  log: Logger
  programs: readonly CheckProgram<Host>[]
  extensions: CheckExtensions
  environment: NodeJS.ProcessEnv
  /** Undefined when nobody wants to be told. */
  manager: ServiceManager | undefined
}

/**
 * Runs the agent with a command line (without the program's name) and the checks it can run inside itself. Never rejects: every failure is
 * told and leaves its exit status.
 */
export async function main(argv: readonly string[], programs: readonly CheckProgram<Host>[]): Promise<void> {
  const commandLine = parseServiceArguments(argv, { program: 'sensu-kvm-agent' })
  if (commandLine.kind === 'exit') {
    process.stdout.write(commandLine.stdout)
    process.stderr.write(commandLine.stderr)
    process.exitCode = commandLine.status
    return
  }
  const { options } = commandLine
  const log = new Logger({ level: options.logLevel ?? 'info', file: options.logFile })
  installSignals(log)
  try {
    process.exitCode = await configureAndRun(options, log, programs)
  } catch (error) {
    // Sensu ends with a stack trace and status 1 here; one line says the same
    log.fatal(error instanceof Error ? error.message : String(error))
    log.fatal('SENSU NOT RUNNING!')
    process.exitCode = FAILED
  }
}

/** Signals that do not stop the agent in order. */
function installSignals(log: Logger): void {
  process.on('SIGTRAP', () => log.toggleDebug())
  process.on('SIGUSR2', () => log.reopen())
  // Node would open its debugger's port; without a listener the signal ends the process, as it does Sensu's
  process.on('SIGUSR1', () => {
    process.removeAllListeners('SIGUSR1')
    process.kill(process.pid, 'SIGUSR1')
  })
}

/** Returns the exit status. */
async function configureAndRun(
  options: ServiceOptions,
  log: Logger,
  programs: readonly CheckProgram<Host>[],
): Promise<number> {
  const inBackground = isInBackground(process.env)
  const { settings, own, notices, errors, loadedFiles } = loadConfiguration(options, process.env)
  log.hide(secretNames(settings))
  if (options.validateConfig) {
    const { text, status } = reportValidity(errors)
    process.stdout.write(text)
    return status
  }
  // the process that started this one has logged the same before
  if (!inBackground) for (const notice of notices) log.log(notice)
  for (const { message, ...data } of errors) log.fatal(message, data)
  if (options.printConfig) {
    log.warn('outputting compiled configuration and exiting')
    process.stdout.write(printSettings(settings))
    return errors.length > 0 ? BAD_CONFIGURATION : 0
  }
  if (errors.length > 0) {
    log.fatal('SENSU NOT RUNNING!')
    return BAD_CONFIGURATION
  }
  const reloadOptions = options.background || inBackground ? withAbsolutePaths(options) : options
  const manager = ServiceManager.take({
    environment: process.env,
    onFailure: reason => log.warn('the service manager cannot be told', { reason }),
  })
  const environment = commandEnvironment(own, writeLoadedFiles('client', loadedFiles, process.env))
  if (options.background && !inBackground) {
    await startInBackground()
    return 0
  }
  const extensions = await loadExtensions(options.extensionDirectory, settings, log)
  if (extensions.size > 0) guardAgainst(extensions, log)
  log.info('configuring sensu spawn', { settings: settings.sensu.spawn })
  if (inBackground) settleInBackground()
  if (options.pidFile !== undefined && !writePidFile(options.pidFile, log)) return BAD_CONFIGURATION
  manager?.start()
  try {
    await run({ options: reloadOptions, settings, own, log, programs, extensions, environment, manager })
  } finally {
    await manager?.close()
    if (extensions.size > 0) setTimeout(() => process.exit(), EXTENSION_LINGER_MS).unref()
  }
  return 0
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

/** Names that the client's definition says are secret; it need not be valid yet. */
function secretNames({ client }: Settings): string[] {
  const names = isObject(client) ? client.redact : undefined
  return Array.isArray(names) ? names.filter(name => typeof name === 'string' && name !== '') : []
}

/** What commands, and checks inside this process, find in their environment. */
function commandEnvironment(own: AgentSettings, loadedFilesPath: string): NodeJS.ProcessEnv {
  const uri = own['libvirt.uri']
  return {
    ...process.env,
    SENSU_LOADED_TEMPFILE: loadedFilesPath,
    ...(uri !== '' && { LIBVIRT_DEFAULT_URI: uri }),
  }
}

function writePidFile(file: string, log: Logger): boolean {
  try {
    writeFileSync(file, `${process.pid}\n`)
    return true
  } catch {
    log.fatal('could not write to pid file', { pid_file: file })
    log.fatal('SENSU NOT RUNNING!')
    return false
  }
}

/** Works until a signal, or a transport error that ends everything. Rejects when the agent cannot start. */
async function run({
  options,
  settings,
  own,
  log,
  programs,
  extensions,
  environment,
  manager,
}: Running): Promise<void> {
  let stop: () => void = () => {}
  const stopped = new Promise<void>(resolve => {
    stop = resolve
  })
  // before anything is opened: a signal that comes early must not leave it behind
  const onSignal = (signal: NodeJS.Signals) => {
    log.warn('received signal', { signal: signal.slice('SIG'.length) })
    stop()
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
  const assembled = await assembleAgent({
    settings,
    own,
    log,
    environment,
    extensions,
    programs: new Map(programs.map(program => [program.check.name, program])),
    directory: dirname(realpathSync(process.argv[1] ?? '.')),
    startedSeconds: Math.floor(Date.now() / 1000 - process.uptime()),
    onFatal: stop,
    onConnected: connected => manager?.status(connected ? 'working' : 'reconnecting'),
  })
  process.on('SIGHUP', reloading(options, log, assembled, manager))
  await workUntil(stopped, assembled, manager)
}

/** What HUP does: one reload after the other, and one more when it comes during one. */
function reloading(
  options: ServiceOptions,
  log: Logger,
  assembled: AssembledAgent,
  manager: ServiceManager | undefined,
): () => void {
  let wanted = false
  let busy = false
  const work = async () => {
    busy = true
    while (wanted) {
      wanted = false
      manager?.reloading()
      await reload(options, log, assembled)
      manager?.reloaded()
    }
    busy = false
  }
  return () => {
    log.warn('received signal', { signal: 'HUP' })
    wanted = true
    if (!busy) void work()
  }
}

/** Reads the configuration again and goes on with it when it is valid, otherwise with the old one. Never rejects. */
async function reload(options: ServiceOptions, log: Logger, assembled: AssembledAgent): Promise<void> {
  const refused = 'the configuration was not reloaded, the one before stays in force'
  try {
    const { settings, own, notices, errors, loadedFiles } = loadConfiguration(options, process.env)
    log.hide(secretNames(settings))
    for (const notice of notices) log.log(notice)
    if (errors.length > 0) {
      log.error('configuration is invalid', { errors: errors.map(error => redact({ ...error })) })
      log.error(refused)
      return
    }
    const needRestart = await assembled.reload(settings, own)
    writeLoadedFiles('client', loadedFiles, process.env)
    log.info('configuration reloaded')
    if (needRestart.length > 0) log.warn('changes that take effect only after a restart', { settings: needRestart })
  } catch (error) {
    log.error(refused, { error: error instanceof Error ? error.message : String(error) })
  }
}

/** A process in the background has another working directory than it was started in. */
function withAbsolutePaths(options: ServiceOptions): ServiceOptions {
  const { configFile, configDirectories } = options
  return {
    ...options,
    ...(configFile !== undefined && { configFile: resolve(configFile) }),
    ...(configDirectories && { configDirectories: configDirectories.map(directory => resolve(directory)) }),
  }
}

async function workUntil(
  stopped: Promise<void>,
  { agent, release }: AssembledAgent,
  manager: ServiceManager | undefined,
): Promise<void> {
  const failed = agent.start().then(
    () => {
      manager?.ready()
      return new Promise<never>(() => {})
    },
    (error: unknown) => {
      throw error
    },
  )
  try {
    await Promise.race([stopped, failed])
  } finally {
    manager?.stopping()
    await agent.stop()
    await release()
  }
}
