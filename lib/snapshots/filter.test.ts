import { assert, suite } from '../../fixtures/harness/index.ts'
import { StorageError } from '../errors.ts'
import { parseFilters } from './filter.ts'
import type { SnapshotInfo } from './types.ts'

const test = suite('snapshot filters')

const info: SnapshotInfo = {
  name: 'default/1/a key', kind: 'active', parent: 'default/2/p', createdNs: 0n, updatedNs: 0n,
  labels: { foo: 'bar', 'containerd.io/gc.root': 'check', 'a.b': 'x', empty: '', odd: 'say "hi", /ok/' },
}
const matches = (...filters: string[]): boolean => parseFilters(filters)(info)

test('equality, inequality, presence', () => {
  for (const filter of [
    '', 'kind==active', 'name=="default/1/a key"', 'parent==default/2/p', 'labels.foo==bar', 'labels."foo"=="bar"', 'labels.foo', 'labels.empty', 'name', 'parent',
    'labels."containerd.io/gc.root"==check', 'labels.a.b==x', 'kind!=view', 'labels.none!=x', 'other!=x', 'kind==active,labels.foo', ' kind == active , labels.foo ', 'labels."f\\x6fo"=="b\\u0061\\162"',
    'labels.odd=="say \\"hi\\", /ok/"', 'parent!=""',
  ]) assert.ok(matches(filter), filter)
  for (const filter of ['kind==view', 'labels.none', 'labels.none==""', 'labels', 'other', 'labels.none!=""', 'kind==active,labels.none', 'name==default/1/a', 'labels.toString', 'labels.__proto__']) assert.not(matches(filter), filter)
})

test('regular expressions, with other quotes, over absent fields too', () => {
  for (const filter of ['name~=/^default\\/.*key$/', 'name~=|1/a|', 'labels.foo~=ba', 'labels.foo~="^b.r$"', 'labels.foo~="(?i)BAR"', 'labels.none~=^$', 'labels.foo~="(?P<first>b)"']) assert.ok(matches(filter), filter)
  for (const filter of ['labels.foo~=/^a/', 'labels.none~=x', 'labels.foo~="(?i)z"']) assert.not(matches(filter), filter)
})

test('of several filters one must match; none matches everything', () => {
  assert.ok(matches())
  assert.ok(matches('kind==view', 'kind==active'))
  assert.not(matches('kind==view', 'kind==committed'))
})

test('what is no filter is INVALID_ARGUMENT', () => {
  for (const filter of ['=', 'name=', 'name==', 'name=x', 'name===x', 'name<x', ',', 'name,', 'name==x,', 'name.', '.name', 'name==/x/', 'name=="x', 'name=="\\q"', 'labels."', 'name==a b', 'name~=/(/', 'name==.x', 'name=="\\U00110000"']) {
    assert.throws(() => parseFilters([filter]), (error: unknown) => StorageError.is(error, 'INVALID_ARGUMENT'), filter)
  }
})
