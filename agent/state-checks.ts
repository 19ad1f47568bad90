import { parseCommandLine } from '../plugin/command-line.js'
import { type GuestOptionValues, selectGuests } from '../plugin/guests.js'
import { libvirtUri } from '../plugin/program.js'
import { isStandalone, standaloneRequest } from '../sensu/results.js'
import type { CheckDefinition } from '../sensu/types.js'
import type { Executions } from './executions.js'
import type { FollowingCheck } from './guest-events.js'

/** The program whose result changes with what libvirt's events tell. */
const STATE_CHECK = 'check-kvm-state'

export interface StateChecksOptions {
  /** All checks of the configuration, by name. */
  checks: Record<string, CheckDefinition>
  executions: Executions
  /** Environment variables, the same that checks inside this process get. */
  variables: Readonly<Record<string, string | undefined>>
}

/** The checks that follow guests' events: those of guests' states that this client schedules and runs inside itself. */
export function stateChecks({ checks, executions, variables }: StateChecksOptions): FollowingCheck[] {
  return Object.entries(checks).flatMap(([name, check]) => {
    const call = isStandalone(check) ? executions.inProcessCall(standaloneRequest(name, check, Date.now())) : undefined
    if (call?.program.check.name !== STATE_CHECK) return []
    const { program, argv } = call
    const request = parseCommandLine(program.check, program.validate, argv)
    if (request.kind !== 'run') return []
    // a check of guests has the options that select them
    const options = request.options as unknown as GuestOptionValues
    return [
      {
        name,
        uri: libvirtUri(request.common, variables),
        covers: guest => selectGuests([guest], options).selected.length > 0,
      },
    ]
  })
}
