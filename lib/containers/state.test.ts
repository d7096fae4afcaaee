import { assert, suite } from '../../fixtures/harness/index.ts'
import { stateOf, withDriver } from './state.ts'

const test = suite('container state')

test('one word for what dockerd notes, in its order of precedence', () => {
  const started = { StartedAt: '2024-01-01T00:00:00Z', FinishedAt: '2024-01-02T00:00:00.5Z' }
  const status = (state: object): string => stateOf(state).status
  assert.is(status({}), 'created')
  assert.is(status({ StartedAt: '0001-01-01T00:00:00Z', FinishedAt: '0001-01-01T00:00:00Z' }), 'created')
  assert.is(status(started), 'exited')
  assert.is(status({ ...started, Dead: true }), 'dead')
  assert.is(status({ ...started, Dead: true, RemovalInProgress: true }), 'removing')
  assert.is(status({ ...started, Running: true, Dead: true }), 'running')
  assert.is(status({ ...started, Running: true, Restarting: true }), 'restarting')
  assert.is(status({ ...started, Running: true, Restarting: true, Paused: true }), 'paused')
  assert.equal(stateOf({ ...started, ExitCode: 137, OOMKilled: true, Error: 'why' }), {
    status: 'exited', exitCode: 137, oomKilled: true, error: 'why', startedAt: '2024-01-01T00:00:00Z', finishedAt: '2024-01-02T00:00:00.5Z',
  })
  for (const nothing of [undefined, null, 'x', 7]) assert.equal(stateOf(nothing), { status: 'created', exitCode: 0, oomKilled: false, error: '' })
})

test('another driver is written in, and every other byte stays', () => {
  const text = '{"Config":{"Driver":"a","x":["Driver","b"]}, "Driver" : "overlay2","Image":"Driver","n":12345678901234567890,"e":"\\u003c\\"Driver\\":\\"no\\"","Driver2":"z"}'
  assert.is(withDriver(text, 'btrfs'), text.replace('"Driver" : "overlay2"', '"Driver" : "btrfs"'))
  assert.is(withDriver('{"ID":"Driver","Driver":"","x":{"Driver":"y"}}', 'vfs'), '{"ID":"Driver","Driver":"vfs","x":{"Driver":"y"}}')
  assert.throws(() => withDriver('{"x":{"Driver":"y"}}', 'vfs'), TypeError)
  assert.throws(() => withDriver('{"Driver":"y"', 'vfs'), SyntaxError)
})
