import { writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { isInBackground, settleInBackground, startInBackground } from './background.js'
import { parseServiceArguments, type ServiceOptions, type Switch } from './command-line.js'
import { isObject } from './json-value.js'
import { Logger } from './log.js'
import { redact } from './redact.js'
import { ServiceManager } from './service-manager.js'
import { type Environment, type LoadedSettings, printSettings, reportValidity, writeLoadedFiles } from './settings.js'
import type { Service, Settings } from './types.js'

/** Exit statuses of Sensu 1.9's programs. */
const FAILED = 1
const BAD_CONFIGURATION = 2

/** What makes a program a Sensu service. `C` is what its configuration is read into. */
export interface ServiceDefinition<C extends LoadedSettings> {
  /** Name of the executable. */
  program: string
  /** Options without an argument that only this program has. */
  switches?: readonly Switch[]
  /** What is wrong with options that cannot be used together. */
  conflict?(options: ServiceOptions): string | undefined
  /** Which of Sensu's services the program is with these options. */
  service(options: ServiceOptions): Service
  /** Reads and validates the configuration. */
  load(options: ServiceOptions, environment: Environment): C
  /** What is loaded and told before the process goes to the background and writes its PID file. */
  prepare?(options: ServiceOptions, configuration: C, log: Logger): Promise<void>
  /** Builds the service; nothing need be connected yet. Rejects when it cannot start. */
  assemble(context: ServiceContext<C>): Promise<AssembledService<C>>
}

/** What a service is built from. */
export interface ServiceContext<C> {
  options: ServiceOptions
  configuration: C
  log: Logger
  /** For commands: the process's own, with SENSU_LOADED_TEMPFILE. */
  environment: NodeJS.ProcessEnv
  /** Ends the service as a signal does. */
  stop(): void
  /** Tells the service manager that the service works, or that it lost a connection. */
  onConnected(connected: boolean): void
}

/** A service that can be run. */
export interface AssembledService<C> {
  /** Resolves when it works for the first time, or was stopped before. Rejects when it cannot. */
  start(): Promise<void>
  /** Ends in order, releases everything. */
  stop(): Promise<void>
  /** Goes on with another valid configuration; resolves with what takes effect only after a restart. Rejects when nothing was changed. */
  reload(configuration: C): Promise<string[]>
}

/** Runs a service with a command line (without the program's name). Never rejects: every failure is told and leaves its exit status. */
export async function runService<C extends LoadedSettings>(
  argv: readonly string[],
  definition: ServiceDefinition<C>,
): Promise<void> {
  const { program, switches = [] } = definition
  const commandLine = parseServiceArguments(argv, { program, switches })
  if (commandLine.kind === 'exit') {
    process.stdout.write(commandLine.stdout)
    process.stderr.write(commandLine.stderr)
    process.exitCode = commandLine.status
    return
  }
  const { options } = commandLine
  const conflict = definition.conflict?.(options)
  if (conflict !== undefined) {
    process.stderr.write(`${conflict}\n`)
    process.exitCode = FAILED
    return
  }
  const log = new Logger({ level: options.logLevel ?? 'info', file: options.logFile })
  installSignals(log)
  try {
    process.exitCode = await configureAndRun(options, log, definition)
  } catch (error) {
    // Sensu ends with a stack trace and status 1 here; one line says the same
    log.fatal(error instanceof Error ? error.message : String(error))
    log.fatal('SENSU NOT RUNNING!')
    process.exitCode = FAILED
  }
}

/** Signals that do not stop the service in order. */
function installSignals(log: Logger): void {
  process.on('SIGTRAP', () => log.toggleDebug())
  process.on('SIGUSR2', () => log.reopen())
  // Node would open its debugger's port; without a listener the signal ends the process, as it does Sensu's
  process.on('SIGUSR1', () => endBy('SIGUSR1'))
}

/** Returns the exit status. */
async function configureAndRun<C extends LoadedSettings>(
  options: ServiceOptions,
  log: Logger,
  definition: ServiceDefinition<C>,
): Promise<number> {
  const inBackground = isInBackground(process.env)
  const configuration = definition.load(options, process.env)
  const { settings, notices, errors, loadedFiles } = configuration
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
  const lastingOptions = options.background || inBackground ? withAbsolutePaths(options) : options
  const manager = ServiceManager.take({
    environment: process.env,
    onFailure: reason => log.warn('the service manager cannot be told', { reason }),
  })
  const loadedFilesPath = writeLoadedFiles(definition.service(options), loadedFiles, process.env)
  if (options.background && !inBackground) {
    await startInBackground()
    return 0
  }
  await definition.prepare?.(lastingOptions, configuration, log)
  log.info('configuring sensu spawn', { settings: settings.sensu.spawn })
  if (inBackground) settleInBackground()
  if (options.pidFile !== undefined && !writePidFile(options.pidFile, log)) return BAD_CONFIGURATION
  manager?.start()
  try {
    const environment = { ...process.env, SENSU_LOADED_TEMPFILE: loadedFilesPath }
    await run({ definition, options: lastingOptions, configuration, log, environment, inBackground, manager })
  } finally {
    await manager?.close()
  }
  return 0
}

/** Names that the client's definition says are secret; it need not be valid yet. */
function secretNames({ client }: Settings): string[] {
  const names = isObject(client) ? client.redact : undefined
  return Array.isArray(names) ? names.filter(name => typeof name === 'string' && name !== '') : []
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

interface Run<C extends LoadedSettings> {
  definition: ServiceDefinition<C>
  options: ServiceOptions
  configuration: C
  log: Logger
  environment: NodeJS.ProcessEnv
  inBackground: boolean
  /** Undefined when nobody wants to be told. */
  manager: ServiceManager | undefined
}

/** Works until a signal, or a transport error that ends everything. Rejects when the service cannot start. */
async function run<C extends LoadedSettings>(parts: Run<C>): Promise<void> {
  const { definition, options, configuration, log, environment, manager } = parts
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
  const onConnected = (connected: boolean) => manager?.status(connected ? 'working' : 'reconnecting')
  const assembled = await definition.assemble({ options, configuration, log, environment, stop, onConnected })
  process.on('SIGHUP', reloading(parts, assembled))
  await workUntil(stopped, assembled, manager)
}

/**
 * What HUP does: one reload after the other, and one more when it comes during one. Where there is nothing new to read, and neither a service manager nor the
 * background, it is a terminal that closes: it ends the process as it ends Sensu's (1.9, which knows no reload).
 */
function reloading<C extends LoadedSettings>(parts: Run<C>, assembled: AssembledService<C>): () => void {
  const { log, inBackground, manager } = parts
  const mayEnd = manager === undefined && !inBackground
  let lastRead = parts.configuration
  let wanted = false
  let busy = false
  const work = async () => {
    busy = true
    while (wanted) {
      wanted = false
      manager?.reloading()
      const read = await reload(parts, assembled, newer => mayEnd && isDeepStrictEqual(newer, lastRead))
      if (read === 'nothing new') return endBy('SIGHUP')
      if (read !== undefined) lastRead = read
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

/**
 * Reads the configuration again and goes on with it when it is valid, otherwise with the old one. Resolves with what it has read, as far as it could, or that
 * there is nothing new. Never rejects.
 */
async function reload<C extends LoadedSettings>(
  { definition, options, log }: Run<C>,
  assembled: AssembledService<C>,
  isNothingNew: (newer: C) => boolean,
): Promise<C | 'nothing new' | undefined> {
  const refused = 'the configuration was not reloaded, the one before stays in force'
  let configuration: C | undefined
  try {
    configuration = definition.load(options, process.env)
    if (isNothingNew(configuration)) return 'nothing new'
    const { settings, notices, errors, loadedFiles } = configuration
    log.hide(secretNames(settings))
    for (const notice of notices) log.log(notice)
    if (errors.length > 0) {
      log.error('configuration is invalid', { errors: errors.map(error => redact({ ...error })) })
      log.error(refused)
      return configuration
    }
    const needRestart = await assembled.reload(configuration)
    writeLoadedFiles(definition.service(options), loadedFiles, process.env)
    log.info('configuration reloaded')
    if (needRestart.length > 0) log.warn('changes that take effect only after a restart', { settings: needRestart })
  } catch (error) {
    log.error(refused, { error: error instanceof Error ? error.message : String(error) })
  }
  return configuration
}

/** Does what the signal does to a process that does not listen to it. */
function endBy(signal: 'SIGHUP' | 'SIGUSR1'): void {
  process.removeAllListeners(signal)
  process.kill(process.pid, signal)
}

/** A process in the background has another working directory than it was started in. */
function withAbsolutePaths(options: ServiceOptions): ServiceOptions {
  const { configFile, configDirectories, extensionDirectory } = options
  return {
    ...options,
    ...(extensionDirectory !== undefined && { extensionDirectory: resolve(extensionDirectory) }),
    ...(configFile !== undefined && { configFile: resolve(configFile) }),
    ...(configDirectories && { configDirectories: configDirectories.map(directory => resolve(directory)) }),
  }
}

async function workUntil<C>(
  stopped: Promise<void>,
  service: AssembledService<C>,
  manager: ServiceManager | undefined,
): Promise<void> {
  const failed = service.start().then(() => {
    manager?.ready()
    return new Promise<never>(() => {})
  })
  try {
    await Promise.race([stopped, failed])
  } finally {
    manager?.stopping()
    await service.stop()
  }
}
