import path from 'node:path'
import { assert, needsNative, projectRoot, suite, tempBase } from '../../fixtures/harness/index.ts'
import { runInUml, skipWithoutUml } from '../../fixtures/uml.ts'
import { StorageError } from '../errors.ts'
import { layerSize, parseSize } from '../driver-options.ts'
import { projectOf, whyNoProjectQuota } from './quota.ts'

const test = suite('sys/quota')

test('sizes in Docker\'s words', () => {
  const G = 2 ** 30
  for (const [text, bytes] of [['10G', 10 * G], ['10g', 10 * G], ['1.5GiB', 1.5 * G], ['512m', G / 2], ['4096', 4096], ['2 kb', 2048], ['7b', 7], ['0', 0], ['1T', 1024 * G]] as const) assert.is(parseSize(text), bytes, text)
  for (const text of ['', 'G', '-1', '1X', '1e3', '10 G B', '9999999999P']) assert.throws(() => parseSize(text), (e: unknown) => StorageError.is(e, 'INVALID_ARGUMENT'), text)
  assert.is(layerSize('x', { size: '1k' }, true, 5), 1024)
  assert.is(layerSize('x', {}, true, 5), 5)
  assert.is(layerSize('x', undefined, false, 5), undefined)
  assert.is(layerSize('x', { size: '0' }, true, 5), undefined)
  assert.throws(() => layerSize('x', { size: '1k' }, false, undefined), (e: unknown) => StorageError.is(e, 'INVALID_ARGUMENT'))
})

test('where there is none, the reason is told', { skip: needsNative }, t => {
  assert.match(whyNoProjectQuota(tempBase()) ?? '', /quota|namespace/)
  assert.is(projectOf(t.dir), 0)
})

interface Written { readonly wrote: number; readonly stoppedBy?: string }
interface Result { readonly quota: boolean; readonly written: { readonly limited: Written; readonly free: Written }; readonly ownProject: boolean; readonly released: boolean; readonly byDefault: Written }

// This machine's kernel may have no project quota: another kernel, as a process, has it for both file systems.
for (const [kind, mkfs, mount, stops] of [
  ['ext4', 'mkfs.ext4 -q -O project,quota -E quotatype=prjquota', 'prjquota', 'EDQUOT'],
  ['xfs', 'mkfs.xfs -q', 'pquota', 'ENOSPC'],
] as const) {
  test(`${kind}: a limit stops its writer and no other, counts what the container added, and ends with its layer`, { skip: skipWithoutUml(), timeoutMs: 180_000 }, () => {
    const probe = path.join(projectRoot, 'dist/fixtures/quota-probe.js')
    const { output, finished } = runInUml([
      'truncate -s 400m /dev/shm/image', `${mkfs} /dev/shm/image`, 'mkdir /dev/shm/fs', `mount -o loop,${mount} /dev/shm/image /dev/shm/fs`,
      // ext4 lets CAP_SYS_RESOURCE past any limit; a container's processes do not have it, and overlay drops it by itself.
      `setpriv --bounding-set=-sys_resource ${process.execPath} ${probe} /dev/shm/fs 2>&1`,
    ], { timeoutMs: 150_000 })
    assert.ok(finished, output.slice(-3000))
    const json = /@result (.*)/.exec(output)?.[1]
    assert.ok(json !== undefined, output.slice(-3000))
    const results = JSON.parse(json) as Record<'overlay2' | 'vfs', Result> & { readonly volume: Written }
    for (const driver of ['overlay2', 'vfs'] as const) {
      const { quota, written: { limited, free }, ownProject, released, byDefault } = results[driver]
      assert.equal([driver, quota, ownProject, released], [driver, true, true, true])
      // 20 MiB, less what the folders need; the parent's 30 MiB are not counted, even where they are copied.
      assert.ok(limited.wrote >= 17 && limited.wrote <= 20, `${driver}: ${limited.wrote} MiB`)
      assert.ok(limited.stoppedBy === stops || limited.stoppedBy === 'EDQUOT', `${driver}: ${limited.stoppedBy}`)
      assert.equal(free, { wrote: 40 })
      assert.ok(byDefault.wrote >= 3 && byDefault.wrote <= 5 && byDefault.stoppedBy !== undefined, `${driver}: ${JSON.stringify(byDefault)}`)
    }
    assert.ok(results.volume.wrote >= 6 && results.volume.wrote <= 8 && results.volume.stoppedBy !== undefined, `volume: ${JSON.stringify(results.volume)}`)
  })
}
