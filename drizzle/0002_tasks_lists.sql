-- By hand: what the index tasks_tags holds of a task. Its cost keeps PostgreSQL from computing it for whole tables.
CREATE FUNCTION "task_tag_keys"("person" uuid, "tags" text[]) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 1000
AS $$ select array_agg(person::text || ':' || tag) from unnest(tags) tag $$;
--> statement-breakpoint
ALTER TABLE "tasks" DROP CONSTRAINT "tasks_title_not_blank";--> statement-breakpoint
ALTER TABLE "tasks" ALTER COLUMN "position" SET DATA TYPE text COLLATE "C";--> statement-breakpoint
ALTER TABLE "tasks" ALTER COLUMN "position" SET DEFAULT '';--> statement-breakpoint
ALTER TABLE "tasks" ADD COLUMN "title_words" text COLLATE "C" DEFAULT '' NOT NULL;--> statement-breakpoint
ALTER TABLE "tasks" ADD COLUMN "description_words" text COLLATE "C" DEFAULT '' NOT NULL;--> statement-breakpoint
CREATE INDEX "tasks_open" ON "tasks" USING btree ("user_id","created_at","id","due_at") WHERE "tasks"."deleted_at" is null and "tasks"."status" <> 'completed';--> statement-breakpoint
CREATE INDEX "tasks_priority" ON "tasks" USING btree ("user_id","priority","created_at","id") WHERE "tasks"."deleted_at" is null;--> statement-breakpoint
CREATE INDEX "tasks_due" ON "tasks" USING btree ("user_id",coalesce("due_at", 'infinity'),"id") WHERE "tasks"."deleted_at" is null;--> statement-breakpoint
CREATE INDEX "tasks_tags" ON "tasks" USING gin (task_tag_keys("user_id", "tags")) WITH (fastupdate=false) WHERE "tasks"."deleted_at" is null and cardinality("tasks"."tags") > 0;--> statement-breakpoint
CREATE INDEX "tasks_updated" ON "tasks" USING btree ("user_id","updated_at","id") WHERE "tasks"."deleted_at" is null;--> statement-breakpoint
CREATE INDEX "tasks_purge" ON "tasks" USING btree ("deleted_at") WHERE "tasks"."deleted_at" is not null;--> statement-breakpoint
ALTER TABLE "tasks" ADD CONSTRAINT "tasks_tags_items" CHECK (cardinality("tasks"."tags") = 0 or (array_position("tasks"."tags", null) is null and array_to_string("tasks"."tags", chr(10)) collate "C" !~ '(?n)^\s*$|.{51}'));--> statement-breakpoint
ALTER TABLE "tasks" ADD CONSTRAINT "tasks_due_at_range" CHECK ("tasks"."due_at" >= '0001-01-01 00:00:00+00' and "tasks"."due_at" < '10000-01-01 00:00:00+00');--> statement-breakpoint
ALTER TABLE "tasks" ADD CONSTRAINT "tasks_title_not_blank" CHECK ("tasks"."title" collate "C" ~ '\S');