/**
 * How much of what is random a test tries: `usual` in a full run, a fifth with `--fast`. More by hand:
 * `TEST_EFFORT=10 bun run test tests/changes-race.test.ts`.
 */
export const withEffort = (usual: number) => usual * Number(process.env.TEST_EFFORT ?? 1)
