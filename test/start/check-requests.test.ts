import t from 'tap'
import { checkRequest } from '../../scripts/start/check-requests.js'

t.test(
  "a request is the definition with name and time of issue, without subscribers and interval: Sensu's payload",
  async t => {
    const definition = {
      command: 'check-kvm-memory -w 90',
      subscribers: ['base', 'kvm'],
      interval: 60,
      timeout: 40,
      handlers: ['default'],
      cron: '* * * * *',
    }
    const request = checkRequest('memory_check', definition, 1795317614)
    t.same(request.subscribers, ['base', 'kvm'])
    t.equal(
      JSON.stringify(request.payload),
      '{"command":"check-kvm-memory -w 90","timeout":40,"handlers":["default"],"cron":"* * * * *","name":"memory_check","issued":1795317614}',
    )
  },
)
