import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { assert, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { S_IFCHR, S_IFIFO, S_IFMT, S_IFREG } from '../sys/files.ts'
import { decodeOverrideStat, effectiveStat, encodeOverrideStat, makeSpecial, readOverrideStat, setOwnership, writeOverrideStat } from './override-stat.ts'

const test = suite('fs/override-stat')

test('the format of containers/storage, both ways', () => {
  const cases = [
    ['0:42:0640', { uid: 0, gid: 42, mode: 0o640 }],
    ['0:0:0666:char-1-3', { uid: 0, gid: 0, mode: 0o666, type: 'char', major: 1, minor: 3 }],
    ['1000:1000:04755:file', { uid: 1000, gid: 1000, mode: 0o4755, type: 'file' }],
    ['3000000:4294967295:0600:pipe', { uid: 3_000_000, gid: 4_294_967_295, mode: 0o600, type: 'pipe' }],
    ['0:6:0660:block-8-1', { uid: 0, gid: 6, mode: 0o660, type: 'block', major: 8, minor: 1 }],
  ] as const
  for (const [text, stat] of cases) {
    assert.is(encodeOverrideStat(stat), text)
    assert.equal(decodeOverrideStat(text), stat)
    assert.equal(decodeOverrideStat(Buffer.from(text)), stat)
  }
  for (const bad of ['', '0:0', '0:0:0999', '-1:0:0644', '0:0:0644:char', '0:0:0644:char-1', '4294967296:0:0644', '0:0:0644:evil', '0:0:0644\n', '0:0:0644:char-9999999999-1']) {
    assert.is(decodeOverrideStat(bad), undefined, bad)
  }
})

test('a note changes what a file counts as; a directory stays one', { skip: needsRoot }, t => {
  fs.writeFileSync(`${t.dir}/f`, '')
  fs.mkdirSync(`${t.dir}/d`)
  if (!writeOverrideStat(`${t.dir}/f`, { uid: 1, gid: 2, mode: 0o4711, type: 'char', major: 5, minor: 6 })) t.skip('the file system holds no user.* attributes')
  writeOverrideStat(`${t.dir}/d`, { uid: 3, gid: 4, mode: 0o1777, type: 'file' })
  assert.equal(readOverrideStat(`${t.dir}/f`), { uid: 1, gid: 2, mode: 0o4711, type: 'char', major: 5, minor: 6 })
  assert.equal(effectiveStat(`${t.dir}/f`, fs.lstatSync(`${t.dir}/f`, { bigint: true })), { uid: 1, gid: 2, mode: S_IFCHR | 0o4711, major: 5, minor: 6 })
  assert.equal(effectiveStat(`${t.dir}/d`, fs.lstatSync(`${t.dir}/d`, { bigint: true })), { uid: 3, gid: 4, mode: 0o041777, major: 0, minor: 0 })
  fs.symlinkSync('f', `${t.dir}/l`)
  assert.is(readOverrideStat(`${t.dir}/l`), undefined)
  assert.is(writeOverrideStat(`${t.dir}/l`, { uid: 1, gid: 1, mode: 0o777 }), false)
})

test('root makes the real thing, and no note', { skip: needsRoot }, t => {
  fs.writeFileSync(`${t.dir}/f`, '')
  assert.is(setOwnership(`${t.dir}/f`, { uid: 12, gid: 34, mode: 0o6750 }), 'real')
  const st = fs.statSync(`${t.dir}/f`)
  assert.equal([st.uid, st.gid, st.mode & 0o7777], [12, 34, 0o6750])
  assert.is(readOverrideStat(`${t.dir}/f`), undefined)
  assert.is(makeSpecial(`${t.dir}/c`, { mode: S_IFCHR | 0o620, uid: 5, gid: 6, major: 4, minor: 64 }), 'real')
  const device = effectiveStat(`${t.dir}/c`, fs.lstatSync(`${t.dir}/c`, { bigint: true }))
  assert.equal(device, { uid: 5, gid: 6, mode: S_IFCHR | 0o620, major: 4, minor: 64 })
  assert.throws(() => makeSpecial(`${t.dir}/x`, { mode: S_IFREG, uid: 0, gid: 0, major: 0, minor: 0 }), TypeError)
})

test('an ordinary user notes what it may not make', { skip: needsRoot }, t => {
  fs.chmodSync(t.dir, 0o777)
  const code = `
    import fs from 'node:fs'
    const { setOwnership, makeSpecial, effectiveStat, readOverrideStat } = await import(${JSON.stringify(new URL('./override-stat.js', import.meta.url).href)})
    const dir = ${JSON.stringify(t.dir)}, out = {}
    const make = (name, f) => { out[name] = f(dir + '/' + name); }
    const stat = p => { const e = effectiveStat(p, fs.lstatSync(p, { bigint: true })); const s = fs.lstatSync(p); return [e.mode, e.uid, e.gid, e.major, e.minor, s.mode & 0o7777] }
    make('root', p => { fs.writeFileSync(p, ''); return [setOwnership(p, { uid: 0, gid: 0, mode: 0o4755 }), ...stat(p)] })
    make('own', p => { fs.writeFileSync(p, ''); return [setOwnership(p, { uid: 65534, gid: 65534, mode: 0o644 }), readOverrideStat(p) !== undefined] })
    make('closed', p => { fs.mkdirSync(p); return [setOwnership(p, { uid: 7, gid: 8, mode: 0o2000 }), ...stat(p)] })
    make('null', p => [makeSpecial(p, { mode: ${S_IFCHR} | 0o666, uid: 0, gid: 0, major: 1, minor: 3 }), ...stat(p)])
    make('whiteout', p => [makeSpecial(p, { mode: ${S_IFCHR} | 0o600, uid: 0, gid: 0, major: 0, minor: 0 }), fs.lstatSync(p).isCharacterDevice()])
    make('fifo', p => [makeSpecial(p, { mode: ${S_IFIFO} | 0o600, uid: 0, gid: 0, major: 0, minor: 0 }), fs.lstatSync(p).isFIFO()])
    make('fifo7', p => [makeSpecial(p, { mode: ${S_IFIFO} | 0o600, uid: 7, gid: 7, major: 0, minor: 0 }), ...stat(p)])
    make('link', p => { fs.symlinkSync('x', p); return [setOwnership(p, { uid: 0, gid: 0, mode: 0o777 }, true), setOwnership(p, { uid: 7, gid: 0, mode: 0o777 }, true)] })
    console.log(JSON.stringify(out))`
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', code], { uid: 65534, gid: 65534, encoding: 'utf8' })
  assert.is(child.status, 0, child.stderr)
  const out = JSON.parse(child.stdout) as Record<string, readonly unknown[]>
  const root = out['root'] ?? []
  if (root[0] === 'lost') t.skip('the file system holds no user.* attributes')
  assert.equal(root, ['noted', S_IFREG | 0o4755, 0, 0, 0, 0, 0o755])
  assert.equal(out['own'], ['noted', true])
  assert.equal(out['closed'], ['noted', 0o040000 | 0o2000, 7, 8, 0, 0, 0o2700])
  assert.equal(out['null'], ['noted', S_IFCHR | 0o666, 0, 0, 1, 3, 0o666])
  assert.equal(out['whiteout']?.[1], (out['whiteout']?.[0] === 'real'))
  assert.equal(out['fifo'], ['real', true])
  assert.equal(out['fifo7'], ['noted', S_IFIFO | 0o600, 7, 7, 0, 0, 0o600])
  assert.equal(out['link'], ['real', 'lost'])
  assert.is((Number(root[1]) & S_IFMT), S_IFREG)
})
