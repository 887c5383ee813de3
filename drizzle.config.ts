import { defineConfig } from 'drizzle-kit'

// `bun run db:generate` compares src/db/tables.ts with the last migration and writes the next one.
export default defineConfig({
  dialect: 'postgresql',
  schema: './src/db/tables.ts',
  out: './drizzle',
  strict: true,
})
