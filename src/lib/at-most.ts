/** Waits for `work`, at most this long; then the result is what `late` returns or throws. */
export async function atMost<T>(milliseconds: number, work: Promise<T>, late: () => T): Promise<T> {
  let timer: Timer | undefined
  const timeUp = new Promise<void>(resolve => {
    // Bun warns of a negative time: of a process that was not scheduled for a while.
    timer = setTimeout(resolve, Math.max(0, milliseconds))
  }).then(late)
  return Promise.race([work, timeUp]).finally(() => clearTimeout(timer))
}
