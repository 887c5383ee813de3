import { fsyncSync, writeSync } from 'node:fs'
import type { PGlite } from '@electric-sql/pglite'
import { NodeFS } from '@electric-sql/pglite/nodefs'

type InitOptions = Parameters<NodeFS['init']>[1]

/** An open file, as the engine's system calls see it. */
export interface Stream {
  /** The file descriptor of our process. */
  nfd: number
}

/** The part of the engine's module that is mended here: Emscripten's file system over the real one. */
export interface EngineModule {
  NODEFS: { stream_ops: { fsync?: (stream: Stream) => number } }
  FS: { ErrnoError: new (code: number) => Error }
}

const inputOutputError = 29

/**
 * PGlite's file system over a real folder, with an fsync that reaches the disk.
 *
 * The stock one has none, and PGlite starts PostgreSQL with `-F`: a power cut then costs the whole database,
 * not only the last rows (tests/power-cut.test.ts). Use together with `durableParams`.
 */
export class DurableFS extends NodeFS {
  #complaint = 'no reason given'

  /** What the engine prints on stderr; kept for the last words of `stop`. */
  readonly listen = (line: string): boolean => {
    const [, text] = line.match(/\b(?:PANIC|FATAL):\s+(.+)/) ?? []
    if (text) this.#complaint = text
    return false
  }

  /** The engine's last FATAL or PANIC message. */
  get complaint(): string {
    return this.#complaint
  }

  override async init(pg: PGlite, options: InitOptions): ReturnType<NodeFS['init']> {
    const { emscriptenOpts } = await super.init(pg, options)
    const preRun = (module: unknown) => this.patch(module as EngineModule)
    return {
      emscriptenOpts: {
        ...emscriptenOpts,
        preRun: [...(emscriptenOpts.preRun ?? []), preRun],
        onAbort: () => this.stop(),
      },
    }
  }

  /** Gives the engine what it lacks, before it touches the first file. */
  protected patch(module: EngineModule): void {
    module.NODEFS.stream_ops.fsync = stream => {
      try {
        fsyncSync(stream.nfd)
        return 0
      } catch {
        throw new module.FS.ErrnoError(inputOutputError)
      }
    }
  }

  /**
   * PostgreSQL gives up (PANIC) when its log cannot be written: a full disk, a failing one. PGlite overlooks that and
   * calls the dead engine again for ever, with the event loop blocked (electric-sql/pglite #1058). So the process
   * ends here, at once; the next start recovers all that was answered.
   */
  protected stop(): void {
    writeSync(
      2,
      `todo-api: the embedded database stopped (${this.#complaint}); nothing that was answered is lost\n`,
    )
    process.exit(1)
  }
}

/** Turns PostgreSQL's own protocol for durability on. `fdatasync`, the default method, does nothing in WebAssembly. */
export function durableParams(defaults: readonly string[]): string[] {
  return [...defaults.filter(param => param !== '-F'), '-c', 'fsync=on', '-c', 'wal_sync_method=fsync']
}
