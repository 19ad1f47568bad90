// Preloaded into the agent (NODE_OPTIONS=--import): writes the longest hold-up of its event loop, in ms, to the file
// named by LAG_PROBE_FILE, each time it is told to by SIGWINCH (a signal that nothing else uses), and starts over.
import { writeFileSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'

const file = process.env.LAG_PROBE_FILE
if (file && process.argv[1]?.endsWith('sensu-kvm-agent')) {
  const histogram = monitorEventLoopDelay({ resolution: 1 })
  histogram.enable()
  process.on('SIGWINCH', () => {
    writeFileSync(file, String(Math.max(0, histogram.max / 1e6 - 1)))
    histogram.reset()
  })
}
