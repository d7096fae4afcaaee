// The mount grammars against the outcomes of Docker's own parsers (fixtures/cases/mount-cases.json), and properties.

import fs from 'node:fs'
import path from 'node:path'
import { assert, projectRoot, suite } from '../../fixtures/harness/index.ts'
import { fc } from '../../fixtures/property.ts'
import { StorageError } from '../errors.ts'
import { formatCsvRecord, parseCsvRecord } from './csv.ts'
import { cleanPath, goQuote, isLocalPath, ramInBytes } from './go-text.ts'
import { mountPointOf, propagations, validateMount } from './mount-config.ts'
import { formatMountFlag, parseMountFlag } from './mount-flag.ts'
import { mergeTmpfsOptions, tmpfsData } from './tmpfs-options.ts'
import type { MountPoint, MountSpec, TmpfsOptions } from './types.ts'
import { formatVolumeFlag, parseVolumeFlag, parseVolumePoint, parseVolumesFrom, resolveVolumeFlag, splitVolumeFlag } from './volume-flag.ts'

const test = suite('mount grammars')

interface Outcome { readonly ok: boolean; readonly error?: string; readonly parse?: Record<string, unknown> }
interface Cases {
  readonly apiMountSpec: readonly (Outcome & { readonly input: MountSpec })[]
  readonly cliVolumeFlag: readonly (Outcome & { readonly input: string })[]
  readonly engineVolumeFlag: readonly (Outcome & { readonly input: string; readonly volumeDriver: string })[]
  readonly mountFlag: readonly { readonly input: string; readonly v28: Outcome; readonly v29: Outcome; readonly engine28?: Outcome }[]
  readonly tmpfsOptions: readonly { readonly input: TmpfsOptions | null; readonly readOnly: boolean; readonly ok: boolean; readonly options?: string; readonly error?: string }[]
  readonly volumesFrom: readonly { readonly input: string; readonly ok: boolean; readonly container?: string; readonly mode?: string; readonly error?: string }[]
}
const cases = JSON.parse(fs.readFileSync(path.join(projectRoot, 'fixtures/cases/mount-cases.json'), 'utf8')) as Cases

/** What came out, in one shape for values and errors, so that one comparison says it all. */
function outcome(work: () => unknown): unknown {
  try {
    return { value: JSON.parse(JSON.stringify(work())) as unknown }
  } catch (error) {
    if (!StorageError.is(error, 'INVALID_ARGUMENT')) throw error
    return { error: error.message }
  }
}

const expected = (wanted: Outcome): unknown => wanted.ok ? { value: wanted.parse } : { error: wanted.error }
const exists = (file: string): boolean => ['/exists', '/foo', '/source'].includes(file)

/** Compare all cases of a group, and show the first few that differ. */
function compare<T>(group: readonly T[], actual: (item: T) => unknown, wanted: (item: T) => unknown): void {
  assert.ok(group.length > 0)
  const wrong = group.flatMap(item => {
    const got = outcome(() => actual(item)), want = wanted(item)
    return equal(got, want) ? [] : [{ input: item, got, want }]
  })
  assert.is(wrong.length, 0, JSON.stringify(wrong.slice(0, 3), null, 1))
}

function equal(a: unknown, b: unknown): boolean {
  try {
    assert.equal(a, b)
    return true
  } catch {
    return false
  }
}

test('dockerd\'s checks of a mount object', () => {
  compare(cases.apiMountSpec, item => mountPointOf(item.input, { exists }), expected)
})

test('the command line\'s splitter of -v', () => {
  compare(cases.cliVolumeFlag, item => splitVolumeFlag(item.input), expected)
})

test('dockerd\'s reading of -v', () => {
  compare(cases.engineVolumeFlag, item => parseVolumePoint(item.input, { volumeDriver: item.volumeDriver }), expected)
  compare(cases.engineVolumeFlag, item => parseVolumeFlag(item.input, { volumeDriver: item.volumeDriver }),
    item => item.ok ? { value: item.parse?.['Spec'] } : { error: item.error })
})

const cwdParent = '/cwd-parent'
const placed = (wanted: Outcome): unknown => JSON.parse(JSON.stringify(expected(wanted)).replaceAll('${CWDPARENT}', cwdParent))
for (const dialect of [28, 29] as const) {
  test(`--mount in the dialect of ${dialect}`, () => {
    compare(cases.mountFlag, item => parseMountFlag(item.input, { dialect, cwd: `${cwdParent}/base` }), item => placed(item[`v${dialect}`]))
  })
}

test('dockerd\'s reading of what --mount gave', () => {
  compare(cases.mountFlag.filter(item => item.engine28 !== undefined), item => mountPointOf(parseMountFlag(item.input, { cwd: `${cwdParent}/base` }), { exists }),
    item => placed(item.engine28 as Outcome))
})

test('tmpfs options', () => {
  compare(cases.tmpfsOptions, item => tmpfsData(item.input, item.readOnly), item => item.ok ? { value: item.options } : { error: item.error })
})

test('volumes-from', () => {
  compare(cases.volumesFrom, item => parseVolumesFrom(item.input), item => item.ok ? { value: { container: item.container, mode: item.mode } } : { error: item.error })
  assert.is((outcome(() => parseVolumesFrom('')) as { error: string }).error, 'volumes-from specification cannot be an empty string')
})

test('relative sources', () => {
  assert.is(parseMountFlag('type=bind,source=../x,target=/t', { cwd: '/a/b' }).Source, '/a/x')
  assert.is(parseMountFlag('type=bind,source=.hidden,target=/t', { cwd: '/a/b' }).Source, '/a/b/.hidden')
  assert.is(resolveVolumeFlag('../x:/t:ro', '/a/b'), '/a/x:/t:ro')
  assert.is(resolveVolumeFlag('name:/t', '/a/b'), 'name:/t')
  assert.is(resolveVolumeFlag('~/x:/t', '/a/b'), '~/x:/t')
})

test('labels and options with names of JavaScript\'s own', () => {
  const mount = parseMountFlag('type=volume,target=/t,volume-label=__proto__=1,volume-opt=constructor=2')
  assert.is(JSON.stringify(mount.VolumeOptions), '{"Labels":{"__proto__":"1"},"DriverConfig":{"Options":{"constructor":"2"}}}')
})

test('sizes', () => {
  const sizes: readonly (readonly [string, number])[] = [['32', 32], ['32b', 32], ['32 b', 32], ['32K', 32768], ['1.5g', 1610612736], ['.5m', 524288], ['2TiB', 2 ** 41], ['0x1p4', 16], ['1e3', 1000], ['1e3k', 1024000]]
  for (const [text, bytes] of sizes) assert.is(ramInBytes(text), bytes, text)
  const bad: readonly (readonly [string, string])[] = [['hello', 'invalid size: \'hello\''], ['', 'invalid size: \'\''], ['-32', 'invalid size: \'-32\''], ['32bb', 'invalid suffix: \'bb\''], ['32kibs', 'invalid suffix: \'kibs\''],
    ['1 2', 'strconv.ParseFloat: parsing "1 2": invalid syntax'], ['1e999', 'strconv.ParseFloat: parsing "1e999": value out of range']]
  for (const [text, message] of bad) assert.equal(outcome(() => ramInBytes(text)), { error: message }, text)
})

test('Go\'s paths and quotes', () => {
  for (const [from, to] of [['', '.'], ['/', '/'], ['//a/', '/a'], ['a/../..', '..'], ['/../..', '/'], ['./a/./b', 'a/b'], ['/a/b/../..', '/']] as const) assert.is(cleanPath(from), to, from)
  for (const [name, local] of [['a', true], ['', false], ['/a', false], ['a/..', true], ['a/../..', false], ['..', false], ['..a', true]] as const) assert.is(isLocalPath(name), local, name)
  assert.is(goQuote('a"b\\c\n\x00é\u200b'), '"a\\"b\\\\c\\n\\x00é\\u200b"')
})

test('--tmpfs over the defaults', () => {
  assert.is(mergeTmpfsOptions('').join(), 'noexec,nosuid,nodev')
  assert.is(mergeTmpfsOptions('exec,size=1m,size=2m').join(), 'nosuid,nodev,exec,size=2m')
  assert.equal(outcome(() => mergeTmpfsOptions('bogus')), { error: 'Invalid tmpfs option "bogus"' })
  assert.equal(outcome(() => mergeTmpfsOptions('bogus=1')), { error: 'Invalid tmpfs option "bogus"' })
})

// ---- properties ---------------------------------------------------------------------------------------------------------------

const text = fc.string({ unit: fc.constantFrom(...'aB9/.:=,"\\ \n\r\té-_%'), maxLength: 8 })

test('a written CSV record reads back', () => {
  fc.assert(fc.property(fc.array(text, { minLength: 1, maxLength: 6 }), fields => {
    // Go reads \r\n inside quotes as \n, and drops a \r at the very end.
    const plain = fields.map(field => field.replaceAll('\r', ''))
    assert.equal(parseCsvRecord(formatCsvRecord(plain)), plain)
  }))
})

const word = fc.string({ unit: fc.constantFrom(...'abXY09_.-'), minLength: 1, maxLength: 8 }).filter(name => !name.startsWith('.'))
const target = fc.array(word, { minLength: 1, maxLength: 3 }).map(parts => `/${parts.join('/')}`)
const maybe = <K extends string, V>(key: K, value: fc.Arbitrary<V>): fc.Arbitrary<Partial<Record<K, V>>> =>
  fc.option(value, { nil: undefined }).map(v => (v === undefined ? {} : { [key]: v }) as Partial<Record<K, V>>)
const merged = (...parts: readonly fc.Arbitrary<object>[]): fc.Arbitrary<MountSpec> => fc.tuple(...parts).map(all => Object.assign({}, ...all) as MountSpec)
const truth = fc.constant(true)
/** fast-check's records have no prototype. */
const plain = (mount: object): unknown => JSON.parse(JSON.stringify(mount))

test('a printed -v parses back', () => {
  const bind = merged(fc.record({ Type: fc.constant('bind'), Source: target, Target: target }), maybe('ReadOnly', truth),
    maybe('BindOptions', fc.constantFrom(...propagations).map(Propagation => ({ Propagation }))))
  const volume = merged(fc.record({ Type: fc.constant('volume'), Source: word, Target: target }), maybe('ReadOnly', truth), maybe('VolumeOptions', fc.constant({ NoCopy: true })))
  const anonymous = fc.record({ Type: fc.constant('volume'), Target: target })
  fc.assert(fc.property(fc.oneof(bind, volume, anonymous), mount => { assert.equal(parseVolumeFlag(formatVolumeFlag(mount)), plain(mount)) }))
  assert.throws(() => formatVolumeFlag({ Type: 'tmpfs', Target: '/t' }), /-v cannot say this mount/)
  assert.throws(() => formatVolumeFlag({ Type: 'bind', Source: '/a:b', Target: '/t' }), /-v cannot say this mount/)
})

const value = fc.string({ unit: fc.constantFrom(...'aB9/:=,"\\é-_%'), minLength: 1, maxLength: 8 })
const pairs = fc.dictionary(value.filter(key => !key.includes('=')), fc.oneof(value), { minKeys: 1, maxKeys: 3, noNullPrototype: true })

for (const dialect of [28, 29] as const) {
  test(`a printed --mount parses back in the dialect of ${dialect}`, () => {
    const config = merged(maybe('Name', value), maybe('Options', pairs)) as fc.Arbitrary<object>
    const driver = dialect === 28 ? config.map(DriverConfig => ({ DriverConfig })) : maybe('DriverConfig', config.filter(item => Object.keys(item).length > 0))
    const common = [fc.record({ Target: value }), maybe('ReadOnly', truth), maybe('Consistency', word.map(name => name.toLowerCase()))]
    const bind = merged(fc.record({ Type: fc.constant('bind'), Source: value }), ...common,
      maybe('BindOptions', merged(maybe('Propagation', fc.constantFrom(...propagations)), maybe('NonRecursive', truth), ...dialect === 29 ? [maybe('CreateMountpoint', truth)] : [])))
    const volume = merged(fc.record({ Type: fc.constant('volume') }), maybe('Source', value), ...common,
      maybe('VolumeOptions', merged(maybe('NoCopy', truth), maybe('Labels', pairs), maybe('Subpath', value), driver)))
    const tmpfs = merged(fc.record({ Type: fc.constant('tmpfs') }), ...common,
      maybe('TmpfsOptions', merged(maybe('SizeBytes', fc.integer({ min: 1, max: 2 ** 50 })), maybe('Mode', fc.integer({ min: 1, max: 0xffffffff })))))
    const image = merged(fc.record({ Type: fc.constant('image'), Source: value }), ...common, maybe('ImageOptions', fc.record({ Subpath: value })))
    fc.assert(fc.property(fc.oneof(bind, volume, tmpfs, image), mount => {
      assert.equal(plain(parseMountFlag(formatMountFlag(mount, { dialect }), { dialect })), plain(mount))
    }), { numRuns: 500 })
  })
}

test('no text makes a parser fail in another way than with INVALID_ARGUMENT', () => {
  const anything = fc.oneof(fc.string(), text, fc.array(fc.constantFrom('type=bind', 'src=/a', 'dst=/b', 'ro', 'bind-recursive=readonly', 'tmpfs-size=1e99g', '"', ',', 'volume-opt', '=', 'x')).map(list => list.join(',')))
  fc.assert(fc.property(anything, input => {
    for (const parse of [parseVolumeFlag, splitVolumeFlag, parseVolumesFrom, (line: string) => parseMountFlag(line, { dialect: 29 }), parseMountFlag, ramInBytes]) outcome(() => parse(input))
    const point = outcome(() => parseVolumePoint(input)) as { value?: MountPoint }
    if (point.value !== undefined) validateMount(point.value.Spec, { exists: () => true })
  }), { numRuns: 2000 })
})
