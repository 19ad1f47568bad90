import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

/** The same test with another directory, for one more service: a test has but one of its own. */
export function withOwnDirectory(t: Test): Test {
  const directory = mkdtempSync(join(tmpdir(), 'sensu-kvm-test-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  return Object.create(t, {
    testdir: { value: () => directory },
    teardown: { value: (action: () => void | Promise<void>) => t.teardown(action) },
  })
}
