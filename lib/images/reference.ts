// Image references: Docker's grammar (github.com/distribution/reference), normalised and familiar forms. Strings in, values out;
// knows no store.

import { StorageError } from '../errors.ts'

/** A reference with its domain and full path: `ubuntu` is docker.io, library/ubuntu. Made only by `parseReference`. */
export interface Reference {
  readonly domain: string
  readonly path: string
  readonly tag?: string
  readonly digest?: string
}

// The names are those of the grammar in distribution/reference's package comment.
const domainComponent = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])'
const domain = `(?:${domainComponent}(?:\\.${domainComponent})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?`
const pathComponent = '[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*'
const remoteName = `${pathComponent}(?:/${pathComponent})*`
const tag = '[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}'
const digest = '[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}'
const referencePattern = new RegExp(`^(?:(${domain})/)?(${remoteName})(?::(${tag}))?(?:@(${digest}))?$`)
const identifierPattern = /^[a-f0-9]{64}$/
const tagPattern = new RegExp(`^${tag}$`)

const defaultDomain = 'docker.io'
const legacyDomain = 'index.docker.io'
const officialPrefix = 'library/'
/** Longer text cannot be a reference (255 of path, 128 of tag, 135 of digest, and a domain); it is not given to the pattern. */
const mostCharacters = 1024
const hexDigits: Readonly<Record<string, number>> = { sha256: 64, sha384: 96, sha512: 128 }

function invalid(message: string, text: string): StorageError {
  return new StorageError('INVALID_ARGUMENT', message, { key: text, hint: 'a reference is [HOST[:PORT]/]NAME[:TAG][@DIGEST], as in ubuntu:24.04' })
}

/**
 * Parse what a user types: `ubuntu`, `ubuntu:24.04`, `ghcr.io/a/b@sha256:…`. No tag is added (tagNameOnly does).
 * @throws INVALID_ARGUMENT in Docker's words: `invalid reference format`, `… must be lowercase`, …
 */
export function parseReference(text: string): Reference {
  if (identifierPattern.test(text)) throw invalid(`invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`, text)
  if (text.length > mostCharacters) throw invalid('invalid reference format: it is too long', text.slice(0, 64))
  const split = splitDomain(text)
  const remote = split.rest.split(':', 1)[0] ?? ''
  if (remote.toLowerCase() !== remote) throw invalid(`invalid reference format: repository name (${remote}) must be lowercase`, text)
  const whole = `${split.domain}/${split.rest}`
  const match = referencePattern.exec(whole)
  if (match === null) {
    if (referencePattern.test(whole.toLowerCase())) throw invalid('repository name must be lowercase', text)
    throw invalid('invalid reference format', text)
  }
  const [, host = '', name = '', version, sum] = match
  if (name.length > 255) throw invalid('repository name must not be more than 255 characters', text)
  if (sum !== undefined) checkDigest(sum, text)
  return { domain: host, path: name, ...(version === undefined ? {} : { tag: version }), ...(sum === undefined ? {} : { digest: sum }) }
}

function checkDigest(sum: string, text: string): void {
  const [algorithm = '', hex = ''] = sum.split(':')
  const digits = hexDigits[algorithm]
  if (digits === undefined) throw invalid('unsupported digest algorithm', text)
  if (hex.length !== digits) throw invalid('invalid checksum digest length', text)
  if (!/^[a-f0-9]+$/.test(hex)) throw invalid('invalid checksum digest format', text)
}

/** The part before the first slash is a host when it looks like one: with a dot or a colon, `localhost`, or with an upper-case letter. */
function splitDomain(text: string): { domain: string; rest: string } {
  const slash = text.indexOf('/')
  if (slash < 0) return { domain: defaultDomain, rest: officialPrefix + text }
  const first = text.slice(0, slash), rest = text.slice(slash + 1)
  const isHost = first === 'localhost' || /[.:]/.test(first) || first.toLowerCase() !== first
  const host = !isHost || first === legacyDomain ? defaultDomain : first
  const name = isHost ? rest : text
  return { domain: host, rest: host === defaultDomain && !name.includes('/') ? officialPrefix + name : name }
}

/** True for what may stand after the colon. */
export function isTag(text: string): boolean {
  return tagPattern.test(text)
}

/** `docker.io/library/ubuntu`. */
export function fullName(ref: Reference): string {
  // `my_host.io/a`: no host by the grammar, as underscores are not allowed in one, so Docker takes all of it for a path without a domain.
  return ref.domain === '' ? ref.path : `${ref.domain}/${ref.path}`
}

/** `docker.io/library/ubuntu:24.04`. */
export function fullString(ref: Reference): string {
  return fullName(ref) + suffixOf(ref)
}

/** The name as Docker shows it: `ubuntu`. */
export function familiarName(ref: Reference): string {
  if (ref.domain !== defaultDomain) return fullName(ref)
  const official = ref.path.startsWith(officialPrefix) ? ref.path.slice(officialPrefix.length) : undefined
  return official === undefined || official.includes('/') ? ref.path : official
}

/** `ubuntu:24.04`, `ubuntu@sha256:…`. */
export function familiarString(ref: Reference): string {
  return familiarName(ref) + suffixOf(ref)
}

function suffixOf({ tag: version, digest: sum }: Reference): string {
  return (version === undefined ? '' : `:${version}`) + (sum === undefined ? '' : `@${sum}`)
}

/** Add `latest` to a reference that has neither tag nor digest. */
export function tagNameOnly(ref: Reference): Reference {
  return ref.tag === undefined && ref.digest === undefined ? { ...ref, tag: 'latest' } : ref
}

/** The form under which Docker keeps it: with a digest, the tag is dropped; with neither, it is `latest`. */
export function storedForm(ref: Reference): Reference {
  return ref.digest === undefined ? tagNameOnly(ref) : { domain: ref.domain, path: ref.path, digest: ref.digest }
}

/**
 * Does a shell pattern match the reference, as `docker images --filter reference=` has it? Against the whole familiar string and against the
 * name alone; `*` and `?` do not cross a slash (Go's path.Match). @throws INVALID_ARGUMENT for a malformed pattern
 */
export function familiarMatch(pattern: string, ref: Reference): boolean {
  const expression = globExpression(pattern)
  return expression.test(familiarString(ref)) || expression.test(familiarName(ref))
}

function globExpression(pattern: string): RegExp {
  let out = ''
  for (let i = 0; i < pattern.length; i++) {
    const character = pattern[i] as string
    if (character === '*') {
      if (!out.endsWith('[^/]*')) out += '[^/]*' // a run of stars is one: many would backtrack for ever
    } else if (character === '?') out += '[^/]'
    else if (character === '[') {
      const end = pattern.indexOf(']', i + 2)
      if (end < 0) throw invalid(`invalid pattern ${JSON.stringify(pattern)}: syntax error in pattern`, pattern)
      const negated = pattern[i + 1] === '^'
      const body = pattern.slice(i + (negated ? 2 : 1), end).replace(/[\\\]^]/g, '\\$&')
      out += `[${negated ? '^/' : ''}${body}]`
      i = end
    } else if (character === '\\' && i + 1 < pattern.length) out += escaped(pattern[++i] as string)
    else out += escaped(character)
  }
  try {
    return new RegExp(`^${out}$`)
  } catch (error) {
    throw new StorageError('INVALID_ARGUMENT', `invalid pattern ${JSON.stringify(pattern)}: syntax error in pattern`, {}, { cause: error })
  }
}

function escaped(character: string): string {
  return character.replace(/[.*+?^${}()|[\]\\/-]/, '\\$&')
}
