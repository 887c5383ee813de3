/** Waits until something is so, and looks again every 10 ms; throws when it is not so in time. */
export async function until(isSo: () => boolean | Promise<boolean>, seconds = 20) {
  const end = performance.now() + seconds * 1000
  while (!(await isSo())) {
    if (performance.now() > end) throw new Error(`not so after ${seconds} s`)
    await Bun.sleep(10)
  }
}
