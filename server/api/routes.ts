import { aggregateRoutes } from './aggregates.js'
import { checkRoutes } from './checks.js'
import { clientRoutes } from './clients.js'
import { eventRoutes } from './events.js'
import { infoRoutes } from './info.js'
import { resultRoutes } from './results.js'
import type { Route } from './router.js'
import { silenceRoutes } from './silenced.js'
import { stashRoutes } from './stashes.js'

/** Everything the API answers; the first route whose path fits counts. */
export const routes: readonly Route[] = [
  ...infoRoutes,
  ...clientRoutes,
  ...checkRoutes,
  ...eventRoutes,
  ...resultRoutes,
  ...aggregateRoutes,
  ...silenceRoutes,
  ...stashRoutes,
]
