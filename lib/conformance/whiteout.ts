// Deletions: written down in one layer, honoured in all above it, and gone without a trace where the name comes back.

import { mkdir, remove, rename, scenario, symlink, write } from './steps.ts'
import type { Suite } from './context.ts'

export function whiteout(s: Suite): void {
  s.test('a deletion below a deletion', {}, c => scenario(c, [
    [mkdir('a/b'), write('a/b/f', '1'), write('a/g', '2')],
    [remove('a/b/f')],
    [remove('a')],
    [mkdir('a'), write('a/g', 'new')],
    [remove('a/g')],
  ]).then(() => undefined))

  // moby ac5d363e: the upper-directory walk saw an opaque directory as one deletion and lost its content.
  s.test('a directory that replaces one shows only its own content', {}, c => scenario(c, [
    [mkdir('d/sub'), write('d/sub/old', '1'), write('d/keep', '2')],
    [remove('d'), mkdir('d'), write('d/new', '3')],
    [mkdir('d/sub'), write('d/sub/new', '4')],
    [remove('d'), mkdir('d/sub')],
  ]).then(() => undefined))

  s.test('a deleted directory whose sibling\'s name begins the same', {}, c => scenario(c, [
    [mkdir('lib'), write('lib/x', '1'), mkdir('lib64'), write('lib64/x', '2'), write('lib.conf', '3')],
    [remove('lib')],
    [write('lib', 'a file now')],
  ]).then(() => undefined))

  s.test('a deleted symlink to a directory leaves the directory', {}, c => scenario(c, [
    [mkdir('real'), write('real/f', '1'), symlink('real', 'ln')],
    [remove('ln')],
    [mkdir('ln'), write('ln/f', '2')],
  ]).then(() => undefined))

  s.test('deletions inside a directory that the same layer made anew or renamed', {}, c => scenario(c, [
    [mkdir('d/e'), write('d/e/f', '1'), write('d/g', '2')],
    [rename('d', 'r'), remove('r/g'), mkdir('d'), write('d/g', '3')],
    [rename('r/e', 'd/e'), remove('r')],
  ]).then(() => undefined))

  s.test('everything deleted, and made again', {}, c => scenario(c, [
    [mkdir('a'), write('a/f', '1'), write('b', '2')],
    [remove('a'), remove('b')],
    [mkdir('a'), write('a/f', '1'), write('b', '2')],
  ]).then(() => undefined))
}
