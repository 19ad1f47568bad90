import type { CheckProgram, RunResult } from '../../plugin/program.js'
import { runCheck } from '../../plugin/program.js'
import { exampleEnvironment, programOf } from '../plugin/example.js'

/** Runs a check of this machine on the machine below `root`; its arguments follow. */
export async function runnerOf(
  check: CheckProgram<unknown>['check'],
  root = '/',
): Promise<(...argv: string[]) => Promise<RunResult>> {
  const program = await programOf(check)
  return (...argv) => runCheck(program, argv, { ...exampleEnvironment(), variables: { SENSU_KVM_ROOT: root } })
}

/** What a run prints first, and its status. */
export function firstLineOf({ output, status }: RunResult): [line: string, status: number] {
  return [output.split('\n')[0] ?? '', status]
}
