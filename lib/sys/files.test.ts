import fs from 'node:fs'
import path from 'node:path'
import { assert, needsNative, needsRoot, suite } from '../../fixtures/harness/index.ts'
import { isErrno, StorageError } from '../errors.ts'
import {
  copyFileRange, dataRanges, ioctl, linkNoFollow, makedev, mknod, openat2, RENAME_EXCHANGE, RENAME_NOREPLACE, rename2, RESOLVE_BENEATH, RESOLVE_IN_ROOT,
  RESOLVE_NO_SYMLINKS, S_IFBLK, S_IFCHR, S_IFIFO, S_IFMT, S_IFSOCK, setTimes, setTimesFd, setUmask, splitDev, syncFileSystem, tryClone,
} from './files.ts'

const test = suite('sys/files')

test('makedev and splitDev are inverse, and as glibc has them', () => {
  assert.is(makedev(1, 3), 0x103n)
  assert.is(makedev(0x12345, 0x6789ab), 0x345n << 8n | 0x12000n << 32n | 0xabn | 0x678900n << 12n)
  for (const [major, minor] of [[0, 0], [1, 3], [4095, 1_048_575], [0xffffffff, 0xffffffff], [259, 65_536]] as const) {
    assert.equal(splitDev(makedev(major, minor)), { major, minor })
  }
  const { rdev } = fs.statSync('/dev/null')
  assert.equal(splitDev(rdev), { major: 1, minor: 3 })
})

test('mknod makes fifos and sockets, by byte paths too', { skip: needsNative }, t => {
  const name = Buffer.from([...Buffer.from(`${t.dir}/f`), 0xff, 0xfe])
  mknod(name, S_IFIFO | 0o600)
  assert.is(fs.lstatSync(name).mode & S_IFMT, S_IFIFO)
  mknod(`${t.dir}/s`, S_IFSOCK | 0o600)
  assert.ok(fs.lstatSync(`${t.dir}/s`).isSocket())
  assert.throws(() => mknod(name, S_IFIFO | 0o600), (e: unknown) => StorageError.is(e, 'ALREADY_EXISTS') && isErrno(e, 'EEXIST'))
  assert.throws(() => mknod('a\0b', S_IFIFO), (e: unknown) => StorageError.is(e, 'INVALID_ARGUMENT'))
})

test('mknod makes devices with large numbers', { skip: needsRoot }, t => {
  mknod(`${t.dir}/c`, S_IFCHR | 0o600, makedev(4000, 700_000))
  mknod(`${t.dir}/b`, S_IFBLK | 0o600, makedev(7, 7))
  mknod(`${t.dir}/w`, S_IFCHR | 0o600, 0n)
  assert.equal(splitDev(fs.lstatSync(`${t.dir}/c`, { bigint: true }).rdev), { major: 4000, minor: 700_000 })
  assert.ok(fs.lstatSync(`${t.dir}/b`).isBlockDevice())
  assert.is(fs.lstatSync(`${t.dir}/w`, { bigint: true }).rdev, 0n)
})

test('times to the nanosecond, negative ones and those of a symlink', { skip: needsNative }, t => {
  fs.writeFileSync(`${t.dir}/f`, '')
  fs.symlinkSync('f', `${t.dir}/l`)
  for (const ns of [0n, 1n, -1n, -1_500_000_001n, 2_208_988_800_123_456_789n]) {
    setTimes(`${t.dir}/l`, ns, ns + 7n)
    const link = fs.lstatSync(`${t.dir}/l`, { bigint: true })
    assert.equal([link.atimeNs, link.mtimeNs], [ns, ns + 7n])
  }
  assert.ok(fs.statSync(`${t.dir}/f`).mtimeMs > 1e12)
  const fd = fs.openSync(`${t.dir}/f`, 'r')
  try { setTimesFd(fd, 5n, 123_456_789_987_654_321n) } finally { fs.closeSync(fd) }
  assert.is(fs.statSync(`${t.dir}/f`, { bigint: true }).mtimeNs, 123_456_789_987_654_321n)
})

test('dataRanges finds the data between holes', t => {
  const fd = fs.openSync(`${t.dir}/f`, 'w+')
  try {
    assert.equal(dataRanges(fd, 0), [])
    fs.ftruncateSync(fd, 1 << 20)
    const size = 1 << 20
    const expectHoles = needsNative === false
    assert.equal(dataRanges(fd, size), expectHoles ? [] : [{ offset: 0, length: size }])
    fs.writeSync(fd, 'x', 65536)
    fs.writeSync(fd, 'x', size - 1)
    const ranges = dataRanges(fd, size)
    if (expectHoles) {
      assert.is(ranges.length, 2)
      assert.ok(ranges[0] !== undefined && ranges[0].offset <= 65536 && ranges[0].offset + ranges[0].length > 65536)
      assert.ok(ranges[1] !== undefined && ranges[1].offset + ranges[1].length === size)
    }
  } finally {
    fs.closeSync(fd)
  }
})

test('copyFileRange copies at offsets, and ends with 0', { skip: needsNative }, t => {
  fs.writeFileSync(`${t.dir}/a`, 'hello world')
  const a = fs.openSync(`${t.dir}/a`, 'r'), b = fs.openSync(`${t.dir}/b`, 'w+')
  try {
    assert.is(copyFileRange(a, 6, b, 2, 100), 5)
    assert.is(fs.readFileSync(`${t.dir}/b`, 'latin1'), '\0\0world')
    assert.is(copyFileRange(a, 11, b, 0, 100), 0)
    assert.type(tryClone(a, b), 'boolean')
    assert.throws(() => copyFileRange(a, 0, a, 0, 5), (e: unknown) => isErrno(e, 'EBADF', 'EINVAL'))
  } finally {
    fs.closeSync(a)
    fs.closeSync(b)
  }
})

test('ioctl with a pointer: the size of what can be read from a pipe', { skip: needsNative }, t => {
  mknod(`${t.dir}/p`, S_IFIFO | 0o600)
  const fd = fs.openSync(`${t.dir}/p`, fs.constants.O_RDWR)
  try {
    fs.writeSync(fd, '12345')
    const answer = Buffer.alloc(4)
    assert.is(ioctl(fd, 0x541b, answer), 0) // FIONREAD
    assert.is(answer.readInt32LE(), 5)
  } finally {
    fs.closeSync(fd)
  }
})

test('syncFileSystem, linkNoFollow', { skip: needsNative }, t => {
  syncFileSystem(t.dir)
  assert.throws(() => syncFileSystem(`${t.dir}/none`), (e: unknown) => isErrno(e, 'ENOENT'))
  fs.symlinkSync('nowhere', `${t.dir}/l`)
  linkNoFollow(`${t.dir}/l`, `${t.dir}/l2`)
  assert.is(fs.readlinkSync(`${t.dir}/l2`), 'nowhere')
})

test('rename2 refuses to replace, and exchanges', { skip: needsNative }, t => {
  fs.mkdirSync(`${t.dir}/a`)
  fs.writeFileSync(`${t.dir}/a/in-a`, '')
  fs.mkdirSync(`${t.dir}/b`)
  assert.throws(() => rename2(`${t.dir}/a`, `${t.dir}/b`, RENAME_NOREPLACE), (e: unknown) => isErrno(e, 'EEXIST'))
  rename2(`${t.dir}/a`, `${t.dir}/b`, RENAME_EXCHANGE)
  assert.ok(fs.existsSync(`${t.dir}/b/in-a`))
  rename2(`${t.dir}/b`, `${t.dir}/c`, RENAME_NOREPLACE)
  assert.ok(fs.existsSync(`${t.dir}/c/in-a`))
})

test('setUmask returns the old mask', { skip: needsNative }, () => {
  const old = setUmask(0o027)
  try { assert.is(process.umask(), 0o027) } finally { assert.is(setUmask(old), 0o027) }
})

test('openat2 keeps inside, in three ways, and its descriptors are closed on exec', { skip: needsNative }, t => {
  fs.mkdirSync(`${t.dir}/root/etc`, { recursive: true })
  fs.writeFileSync(`${t.dir}/root/etc/f`, 'inside')
  fs.writeFileSync(`${t.dir}/secret`, 'outside')
  fs.symlinkSync('/etc/f', `${t.dir}/root/abs`)
  fs.symlinkSync('../secret', `${t.dir}/root/up`)
  const dir = fs.openSync(`${t.dir}/root`, 'r')
  const read = (name: string | Buffer, resolve: number): string => {
    const fd = openat2(dir, name, fs.constants.O_RDONLY, resolve)
    try {
      const flags = parseInt(/flags:\s+(\d+)/.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '0', 8)
      assert.ok((flags & 0o2000000) !== 0, 'O_CLOEXEC')
      return fs.readFileSync(fd, 'utf8')
    } finally {
      fs.closeSync(fd)
    }
  }
  try {
    assert.is(read('abs', RESOLVE_IN_ROOT), 'inside')
    assert.is(read(Buffer.from('etc/f'), RESOLVE_BENEATH), 'inside')
    assert.throws(() => read('up', RESOLVE_BENEATH), (e: unknown) => isErrno(e, 'EXDEV'))
    assert.throws(() => read('up', RESOLVE_IN_ROOT), (e: unknown) => isErrno(e, 'ENOENT'))
    assert.throws(() => read('abs', RESOLVE_NO_SYMLINKS), (e: unknown) => isErrno(e, 'ELOOP'))
    const made = openat2(dir, 'new', fs.constants.O_CREAT | fs.constants.O_WRONLY | fs.constants.O_EXCL, RESOLVE_BENEATH, 0o640)
    fs.closeSync(made)
    assert.is(fs.statSync(path.join(t.dir, 'root/new')).mode & 0o700, 0o600)
  } finally {
    fs.closeSync(dir)
  }
})
