import fs from 'node:fs'
import path from 'node:path'
import { spawnSync } from 'node:child_process'
import { assert, suite } from '../../fixtures/harness/index.ts'
import { deadSessions, hasDeadSession, Session } from './session.ts'

const test = suite('snapshot sessions')

test('ids are new, ascending and of one session; a clean end leaves nothing', t => {
  const session = Session.begin(t.dir, false)
  const ids = Array.from({ length: 200 }, () => session.next())
  assert.is(new Set(ids).size, 200)
  assert.match(ids[0] ?? '', /^sn-[a-z2-7]{13}-0$/)
  assert.not(hasDeadSession(t.dir), 'the session lives')
  for (const id of ids) session.settled(id)
  session.close()
  assert.equal(fs.readdirSync(t.dir), [])
})

test('what a process that died was making is named, and nothing that was settled long before', t => {
  const module = path.join(import.meta.dirname, 'session.js')
  const result = spawnSync(process.execPath, ['--input-type=module', '-e', `
    import { Session } from ${JSON.stringify(module)}
    const session = Session.begin(${JSON.stringify(t.dir)}, true)
    const early = session.next()
    for (let i = 0; i < 149; i++) session.settled(session.next())
    session.settled(early)
    console.log([early, session.next(), session.next()].join(' '))
    process.kill(process.pid, 'SIGKILL')`], { encoding: 'utf8' })
  const [early = '', ...unsettled] = result.stdout.trim().split(' ')
  assert.is(unsettled.length, 2, result.stderr)
  assert.ok(hasDeadSession(t.dir))
  for (const dead of deadSessions(t.dir)) {
    const ids: readonly string[] = dead.ids
    assert.ok(unsettled.every(id => ids.includes(id)))
    // It was in the making at the last reservation.
    assert.ok(ids.includes(early))
    assert.ok(dead.ids.length <= 192, `${dead.ids.length} ids to look at`)
    assert.equal([...deadSessions(t.dir)], [], 'one at a time')
    dead.done()
  }
  assert.equal(fs.readdirSync(t.dir), [])
  assert.not(hasDeadSession(t.dir))
})
