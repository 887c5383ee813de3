-- By hand: what the index task_words_keys holds of the words of a task (' buy milk'): each with its person before it. Of a
-- long word the beginning only, for a key may not be as long as a word may; whoever searches looks at the task itself, too.
CREATE FUNCTION "task_word_keys"("person" uuid, "words" text) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE STRICT COST 1000 AS $$
BEGIN
  RETURN array_to_tsvector(ARRAY(
    SELECT person::text || ':' || left(word, 40) FROM unnest(string_to_array(words, ' ')) word WHERE word <> ''
  ));
END $$;
--> statement-breakpoint
-- What is looked for in it: words, or beginnings of words, of the patterns ('% milk%'). The longest four of them, which find
-- the least, because each costs what it finds. NULL finds nothing.
CREATE FUNCTION "task_word_query"("person" uuid, "patterns" text[]) RETURNS tsquery LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
  RETURN (
    SELECT string_agg(quote_literal(person || ':' || left(word, 40)) || ':*', ' & ')::tsquery
    FROM (
      SELECT word FROM unnest(patterns) pattern, unnest(string_to_array(btrim(pattern, '% '), ' ')) word
      WHERE word <> '' ORDER BY char_length(word) DESC LIMIT 4
    ) longest
  );
END $$;
--> statement-breakpoint
CREATE TABLE "task_word_lists" (
	"user_id" uuid PRIMARY KEY NOT NULL,
	"through" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "task_words" (
	"user_id" uuid NOT NULL,
	"id" uuid NOT NULL,
	"created_at" timestamp with time zone NOT NULL,
	"words" text COLLATE "C" NOT NULL,
	CONSTRAINT "task_words_pkey" PRIMARY KEY("user_id","id")
);
--> statement-breakpoint
ALTER TABLE "task_word_lists" ADD CONSTRAINT "task_word_lists_user_fk" FOREIGN KEY ("user_id") REFERENCES "public"."task_counters"("user_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "task_words" ADD CONSTRAINT "task_words_list_fk" FOREIGN KEY ("user_id") REFERENCES "public"."task_word_lists"("user_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "task_words_keys" ON "task_words" USING gin (task_word_keys("user_id", "words")) WITH (fastupdate=false);--> statement-breakpoint
-- By hand: statistics of these keys help no plan, and to collect them the functions would be called for 30,000 rows.
ALTER INDEX "task_words_keys" ALTER COLUMN 1 SET STATISTICS 0;--> statement-breakpoint
ALTER INDEX "tasks_tags" ALTER COLUMN 1 SET STATISTICS 0;
