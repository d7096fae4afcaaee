#!/usr/bin/env node
// The bin: runs the program with a session, and turns whatever happens into an exit status. 0, 1 for failures, 2 for usage, 130 and 143 for signals,
// 141 when the reader of stdout went away (as of a program that SIGPIPE ends).

import { readFileSync } from 'node:fs'
import { program } from './program.ts'
import { Session } from './session.ts'

const version = (JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as { version: string }).version

const session = new Session()
session.watch()
await program(session, version, process.argv.slice(2))
session.leave()
