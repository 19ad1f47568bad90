import { Store } from '../../store/store.js'
import { resultInput } from './support.js'

// Stores failing results of one check as fast as it can and prints the occurrences it was told.
const [url = '', count = '0'] = process.argv.slice(2)
const store = await Store.connect(url)
const results = await Promise.all(Array.from({ length: Number(count) }, () => store.storeResult(resultInput(2))))
const occurrences = results.map(result =>
  result.outcome === 'stored' ? /"occurrences":(\d+),/.exec(result.event?.text ?? '')?.[1] : '-',
)
console.log(occurrences.join(' '))
store.close()
