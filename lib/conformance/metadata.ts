// What a file has beside its bytes: times, xattrs, special bits, holes.

import { strict as assert } from 'node:assert'
import fs from 'node:fs'
import { nativeReason } from '../sys/native.ts'
import { setXattr } from '../sys/xattr.ts'
import { makeLayer, newId } from './context.ts'
import type { Suite } from './context.ts'
import { chmod, link, mkdir, remove, scenario, symlink, times, truncate, write, writeAt, xattr } from './steps.ts'
import type { Step } from './steps.ts'
import { isErrno } from '../errors.ts'

const ns = (iso: string, extra = 0n): bigint => BigInt(Date.parse(iso)) * 1_000_000n + extra

export function metadata(s: Suite): void {
  s.test('times in nanoseconds: 2040, before 1970, directories and symlinks too', {}, c => scenario(c, [
    [mkdir('d'), write('d/future', '1'), write('d/past', '2'), symlink('past', 'd/l'), write('d/nine', '3'), times('d/future', ns('2040-02-03T04:05:06Z', 123_456_789n)), times('d/past', ns('1955-11-05T06:15:00Z', 1_000_000n)),
      times('d/l', ns('2001-01-01T00:00:00Z', 999_000_000n)), times('d/nine', ns('1999-12-31T23:59:59Z', 999_990_000n)), times('d', ns('2010-10-10T10:10:10Z', 10_101_010n))],
    [chmod('d/past', 0o600), chmod('d', 0o700)],
    [times('d/nine', ns('1999-12-31T23:59:59Z', 999_980_000n))],
  ]).then(() => undefined))

  // moby#35699, #43882, #40375: lost, or fatal, different per driver.
  s.test('user.* attributes with binary values, also over a child that changes the file', { native: true }, async c => {
    if (!await takes(c, 'user.layerstack')) return
    await scenario(c, [
      [mkdir('d'), write('d/f', '1'), xattr('d/f', 'user.bin', Buffer.from([0, 1, 255, 10, 61, 0])), xattr('d', 'user.dir', 'x'), xattr('d/f', 'user.empty', '')],
      [chmod('d/f', 0o600), xattr('d/f', 'user.more', Buffer.alloc(2000, 7))],
      [write('d/f', '2')],
    ])
  })

  s.test('security.capability survives chown, layers and diffs', { native: true, ownership: true, mounts: true }, async c => {
    // VFS_CAP_REVISION_2 with cap_net_raw+ep, as ping has it.
    const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex')
    if (!await takes(c, 'security.capability', capability)) return
    await scenario(c, [
      [write('ping', 'x', 0o755), xattr('ping', 'security.capability', capability)],
      [chmod('ping', 0o711)],
      [write('other', 'y')],
    ])
  })

  s.test('setuid, setgid and sticky bits', {}, c => scenario(c, [
    [write('suid', 'x', 0o4755), write('sgid', 'x', 0o2755), mkdir('tmp', 0o1777), mkdir('sg', 0o2775), write('none', 'x', 0o600)],
    [chmod('suid', 0o6711), chmod('tmp', 0o755), chmod('none', 0o400)],
    // Applying a layer keeps them by right or by note, else drops them: they would act for the wrong user.
  ], { viaTar: s.supports.ownership || nativeReason === undefined }).then(() => undefined))

  // moby#5419, #28920: lastlog fills the disk.
  s.test('a sparse file of 8 GiB stays sparse in a child, a diff and a copy-up', { timeoutMs: 120_000 }, async c => {
    const sparse: Step[] = [write('lastlog', ''), truncate('lastlog', 8 * 2 ** 30), writeAt('lastlog', 4 * 2 ** 30, 'in the middle'), writeAt('lastlog', 8 * 2 ** 30 - 5, 'end..')]
    const base = await makeLayer(c, undefined, dir => { for (const step of sparse) step(dir) })
    const top = await makeLayer(c, base, dir => writeAt('other', 1 << 30, 'x')(dir))
    for (const id of [base, top]) {
      const usage = await c.driver.usage(id)
      assert.ok(usage.sizeBytes < 1 << 20, `${usage.sizeBytes} bytes used`)
      await c.show(id, 'ro', dir => {
        const st = fs.statSync(`${dir}/lastlog`)
        assert.equal(st.size, 8 * 2 ** 30)
        assert.ok(st.blocks * 512 < 1 << 20)
        const read = Buffer.alloc(13)
        const fd = fs.openSync(`${dir}/lastlog`, 'r')
        try { fs.readSync(fd, read, 0, 13, 4 * 2 ** 30) } finally { fs.closeSync(fd) }
        assert.equal(read.toString(), 'in the middle')
      })
    }
  })

  s.test('hard links survive a child and a diff', {}, c => scenario(c, [
    [write('a', '1'), link('a', 'b'), symlink('a', 's')], [write('c', '2')], [remove('a')],
  ]).then(() => undefined))
}

/** Does this file system hold the attribute at all? tmpfs has user.* since Linux 6.6 only. */
async function takes(c: Parameters<Parameters<Suite['test']>[2]>[0], name: string, value: Buffer = Buffer.from('x')): Promise<boolean> {
  const id = newId('probe')
  await c.driver.create(id)
  const { path } = await c.driver.content(id)
  try {
    fs.writeFileSync(`${path}/f`, '')
    setXattr(`${path}/f`, name, value)
    return true
  } catch (error) {
    if (!isErrno(error, 'EOPNOTSUPP', 'EPERM')) throw error
    return false
  } finally {
    await c.driver.remove(id)
  }
}
