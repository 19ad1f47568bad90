import type { Test } from 'tap'
import { executable, type ServiceExit, ServiceProcess, type ServiceProcessOptions } from '../support/service-process.js'

/** The built executable. */
export const agentFile = executable('sensu-kvm-agent')

export type AgentOptions = ServiceProcessOptions
export type AgentExit = ServiceExit

/** A running agent; it is killed when the test ends before it. */
export class AgentProcess extends ServiceProcess {
  constructor(t: Test, options: AgentOptions) {
    super(t, agentFile, options)
  }
}
