import { defineConfig } from 'drizzle-kit'

// `bun run db:generate` compares the tables with the last migration and writes the next one.
export default defineConfig({
  dialect: 'postgresql',
  schema: ['./src/db/tables.ts', './src/modules/*/table.ts'],
  out: './drizzle',
  strict: true,
})
