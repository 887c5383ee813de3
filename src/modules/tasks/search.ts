import { getTableName, type SQL, sql } from 'drizzle-orm'
import { statement } from '../../db/client.ts'
import type { Driver } from '../../db/driver.ts'
import { taskCounters, tasks, taskTombstones, taskWordLists, taskWords } from '../../db/schema.ts'
import { taskOf, value } from './rows.ts'

/**
 * The index of words, which searches in long lists are answered from. The writes do not keep it: they would cost two to
 * three times as much, and most people search short lists or never. It is brought up to date after a search that had
 * many changes to read (docs/decisions/0006-lists.md).
 */

const user = value('user', 'uuid')

/** What is searched, as `searchPatterns` makes it. */
export const patterns = value('q', 'text[]')

/** When the index has more tasks than that for a search, they are close to each other in the list, which is walked. */
const hitsMax = sql.raw('2000')
const areFew = sql`(select are_few from rarity)`

/** What the index has of the words, for the WITH of a statement; the index is asked only if `condition` holds. */
export const searchHits = (condition: SQL): SQL => sql`
  hits as materialized (
    select t.id, t.created_at from ${taskWords} t
    where task_word_keys(t.user_id, t.words) @@ task_word_query(${user}, ${patterns}) and ${condition}
    limit ${hitsMax} + 1
  ), rarity as materialized (
    select count(*) <= ${hitsMax} as are_few from hits
  )`

/**
 * Where the tasks of a search are, each as `from … where …` with the tasks as `t`: among those that changed since the
 * index was brought up to date; in the index, which may be out of date and knows words one by one, so that each task is
 * looked at; or else in the list. `matching` is all that is asked of a task. What is taken from the index, and of it and
 * the task, can be given as `hits` and `columns`.
 */
export function searchSources(
  list: SQL,
  matching: SQL,
  { hits, columns } = { hits: sql`from hits`, columns: sql`task.*` },
): SQL[] {
  const through = sql`(select coalesce(max(through), 0) from ${taskWordLists} where user_id = ${user})`
  // With an end to the range, PostgreSQL takes it for a small part of the table and not for a third.
  const changed = sql`t.version > ${through} and t.version <= ${sql.raw(`${Number.MAX_SAFE_INTEGER}`)}`
  const upToDate = sql`t.user_id = ${user} and t.version <= ${through} and t.deleted_at is null and ${matching}`
  return [
    sql`from (
      select * from ${tasks} t where t.user_id = ${user} and ${changed} and ${areFew} offset 0
    ) t where t.deleted_at is null and ${matching}`,
    sql`from (
      select ${columns} from (select * ${hits}) hit, ${taskOf('hit', upToDate)}
      task where ${areFew}
    ) t where true`,
    sql`${list} and not ${areFew}`,
  ]
}

/** So many changes are read from the tasks by every search before it is worth while to index them. */
const changesMax = 200
/** Tasks, and letters of words in them, that are indexed at a time: some milliseconds. One task may have more. */
const tasksAtOnce = 100
const lettersAtOnce = 4000

/**
 * One step of the index: what changed first since the last one, when so many changes are missing. Gives whether there is
 * more; null when it was in vain and has to be tried again; no row when there is nothing to do.
 *
 * Changes are committed in the order of their numbers, so whoever sees one sees all before it. The step locks the counter,
 * as every change of a task does, and when that has moved since the statement began to look, it does nothing: it would
 * index a task that is gone. Nor does it when `through` has moved, because of another step or of `import`, which brings
 * tasks in under old numbers. Tasks in the trash are passed over: the purge takes them without the counter, and to restore
 * one changes it. Who deleted a task while the last step was at work has not seen its words: they are cleared here.
 */
const stepQuery = sql`
  with list as materialized (
    select c.seq, coalesce(l.through, 0) as through
    from ${taskCounters} c left join ${taskWordLists} l on l.user_id = c.user_id
    where c.user_id = ${user} and c.seq - coalesce(l.through, 0) >= ${value('changes', 'int')}
  ), turn as materialized (
    select c.seq from ${taskCounters} c, list where c.user_id = ${user} for no key update of c
  ), changed as materialized (
    select t.id, t.created_at, t.version, t.deleted_at, t.title_words || t.description_words as words
    from ${tasks} t
    where t.user_id = ${user} and t.version > (select through from list) and (select seq from list) = (select seq from turn)
    order by t.version limit ${tasksAtOnce}
  ), sized as (
    select *, sum(length(words)) over (order by version) - length(words) as letters_before from changed
  ), batch as materialized (
    select * from sized where letters_before < ${lettersAtOnce}
  ), step as (
    insert into ${taskWordLists} as l (user_id, through)
    select ${user}, case when count(b.id) < ${tasksAtOnce} and count(b.id) = (select count(*) from changed)
      then list.seq else max(b.version) end
    from list join turn using (seq) left join batch b on true group by list.seq
    on conflict (user_id) do update set through = excluded.through where l.through = (select through from list)
    returning through
  ), written as (
    insert into ${taskWords} as w (user_id, id, created_at, words)
    select ${user}, id, created_at, words from batch, step where deleted_at is null
    on conflict (user_id, id) do update set words = excluded.words where w.words <> excluded.words
  ), cleared as (
    delete from ${taskWords} w using ${taskTombstones} s, step
    where s.user_id = ${user} and s.version > (select through from list) and s.version <= step.through
      and w.user_id = s.user_id and w.id = s.id
  )
  select (select through < list.seq from step) from list`

/** For `with`, behind a `gone` that deletes tasks: their words go along. */
export const wordsOfGone = sql`
  delete from ${taskWords} w using gone where w.user_id = gone.user_id and w.id = gone.id`

export type SearchIndex = ReturnType<typeof createSearchIndex>

/** Keeps the index: notes who searches, and indexes their tasks in small steps. */
export function createSearchIndex(driver: Driver) {
  const step = statement<[isMore: boolean | null]>(driver, stepQuery)
  const isUnknown = statement<[boolean]>(
    driver,
    sql`select reltuples < 1 from pg_class where oid = ${sql.raw(`'${getTableName(taskWords)}'::regclass`)}`,
  )
  const analyze = statement(driver, sql`analyze ${taskWords}`)
  const searchers = new Set<string>()

  return {
    /** Notes that a person has searched. */
    searched(userId: string) {
      searchers.add(userId)
    },

    /** Indexes the tasks of those who have searched since the last time, and of whom so many changes are missing. */
    async catchUp(changesMin = changesMax): Promise<void> {
      const turns = Array.from(searchers, user => ({ user, changes: changesMin }))
      searchers.clear()
      let isChanged = false
      // One step for each, and again: nobody waits for the long list of somebody else.
      for (const { user, changes } of turns) {
        const [row] = await step({ user, changes })
        if (row?.[0] === true) turns.push({ user, changes: 1 })
        if (row?.[0] === null) searchers.add(user)
        else if (row) isChanged = true
      }
      // For a table that it takes for empty PostgreSQL makes plans that read all of it, and keeps them.
      if (isChanged && (await isUnknown({}))[0]![0]) await analyze({})
    },
  }
}
