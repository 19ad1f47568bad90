import { runService } from '../sensu/service.js'
import type { StatusPage } from './api/status-page.js'
import { assembleServer } from './assemble.js'
import { API_ONLY, type Configuration, loadConfiguration, NO_API, serviceOf } from './configuration.js'

/**
 * Runs the server, the API, or both, with a command line (without the program's name) and what the build made of the status page. Never rejects:
 * every failure is told and leaves its exit status.
 */
export async function main(argv: readonly string[], statusPage: StatusPage): Promise<void> {
  await runService<Configuration>(argv, {
    program: 'sensu-kvm-server',
    switches: [
      { long: API_ONLY, summary: 'Only answer the HTTP API, as sensu-api does' },
      { long: NO_API, summary: 'Do not answer the HTTP API, as sensu-server does' },
    ],
    conflict: ({ switches = [] }) =>
      switches.includes(API_ONLY) && switches.includes(NO_API)
        ? `--${API_ONLY} and --${NO_API} leave nothing to do`
        : undefined,
    service: serviceOf,
    load: loadConfiguration,
    assemble: context => assembleServer(context, statusPage),
  })
}
