import { constants, fsyncSync, openSync, writeSync } from 'node:fs'
import type { PGlite } from '@electric-sql/pglite'
import { NodeFS } from '@electric-sql/pglite/nodefs'

type InitOptions = Parameters<NodeFS['init']>[1]

/** An open file, as the engine's system calls see it. */
export interface Stream {
  /** The file descriptor of the engine. */
  fd: number
  /** The file descriptor of our process. */
  nfd: number
}

/** The part of the engine's module that is patched here: Emscripten's file system over the real one. */
export interface EngineModule {
  NODEFS: {
    node_ops: { mknod(parent: object, name: string, mode: number, device: number): object }
    stream_ops: { open(stream: Stream): void; fsync?: (stream: Stream) => number }
  }
  FS: {
    ErrnoError: new (code: number) => Error
    lookupNode(parent: object, name: string): object
    destroyNode(node: object): void
    closeStream(fd: number): void
  }
}

const inputOutputError = 29

/**
 * PGlite's file system over a real folder, with an fsync that reaches the disk.
 *
 * The original has none, and PGlite starts PostgreSQL with `-F`: a power cut then destroys the whole database, not only the
 * last rows (tests/power-cut.test.ts). cluster-files.ts starts it with fsync.
 */
export class DurableFS extends NodeFS {
  /** The engine's last FATAL or PANIC message, if it has said one. */
  lastError: string | undefined
  /** Whether the engine has started. */
  isOpen = false

  /** Receives the engine's stderr. */
  readonly listen = (line: string): boolean => {
    const [, text] = line.match(/(?:\bPANIC|\bFATAL|^postgres):\s+(.+)/) ?? []
    if (text) this.lastError = text
    return false
  }

  override async init(pg: PGlite, options: InitOptions): ReturnType<NodeFS['init']> {
    const { emscriptenOpts } = await super.init(pg, options)
    const preRun = (module: unknown) => this.patch(module as EngineModule)
    return {
      emscriptenOpts: {
        ...emscriptenOpts,
        preRun: [...(emscriptenOpts.preRun ?? []), preRun],
        // While it starts, PGlite throws.
        onAbort: () => this.isOpen && this.stop(),
      },
    }
  }

  /**
   * Adds fsync to the engine's file system, before it opens the first file. And undoes what Emscripten leaves in its tables
   * when a file cannot be made or opened, because the disk is full or too many files are open: a name without a file, which
   * can never be made again ("File exists"), and one of 4,096 descriptors.
   */
  protected patch({ NODEFS: { node_ops, stream_ops }, FS }: EngineModule): void {
    stream_ops.fsync = stream => {
      try {
        fsyncSync(stream.nfd)
        return 0
      } catch {
        throw new FS.ErrnoError(inputOutputError)
      }
    }
    const { mknod } = node_ops
    node_ops.mknod = (parent, name, mode, device) => {
      try {
        return mknod(parent, name, mode, device)
      } catch (error) {
        FS.destroyNode(FS.lookupNode(parent, name))
        throw error
      }
    }
    const { open } = stream_ops
    stream_ops.open = stream => {
      try {
        open(stream)
      } catch (error) {
        FS.closeStream(stream.fd)
        throw error
      }
    }
  }

  /**
   * PostgreSQL stops (PANIC) when its log cannot be written: the disk is full or failing. PGlite ignores that and calls the
   * stopped engine in an endless loop that blocks the event loop (electric-sql/pglite #1058). So the process ends here, at
   * once; the next start recovers every acknowledged write.
   */
  protected stop(): void {
    const reason = this.lastError ?? 'no reason given'
    try {
      writeSync(
        nonBlockingStderr(),
        `todo-api: the embedded database stopped (${reason}); no acknowledged write is lost\n`,
      )
    } finally {
      // Also when stderr is a file on the disk that has failed.
      process.exit(1)
    }
  }
}

/** A write to a pipe that is full then fails and does not wait. A socket cannot be opened again. */
function nonBlockingStderr(): number {
  try {
    return openSync('/proc/self/fd/2', constants.O_WRONLY | constants.O_APPEND | constants.O_NONBLOCK)
  } catch {
    return 2
  }
}
