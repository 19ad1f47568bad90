import { setTimeout as pause } from 'node:timers/promises'
import { tryLock } from '../../plugin/file-lock.js'

// Takes a lock, says whether it got it, and keeps it until it is killed.
const [path = ''] = process.argv.slice(2)
console.log(tryLock(path) === undefined ? 'taken' : 'locked')
await pause(60_000)
