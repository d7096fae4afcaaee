// The addresses of the modules with jobs for runJob, apart from them: who has a layer worked on in a thread need not load there what the thread does (a
// third of what the command line loaded).

/** The address of lib/diff/jobs.ts. */
export const jobsModule: string = addressOf('jobs')

/** The address of lib/diff/assemble.ts. */
export const assembleModule: string = addressOf('assemble')

function addressOf(name: string): string {
  return import.meta.url.replace(/jobs-module(\.[a-z]+)$/, `${name}$1`)
}
