DROP INDEX "tasks_due";--> statement-breakpoint
DROP INDEX "tasks_updated";--> statement-breakpoint
CREATE INDEX "tasks_due" ON "tasks" USING btree ("user_id",coalesce("due_at", 'infinity'),"id","created_at","due_at") WHERE "tasks"."deleted_at" is null;--> statement-breakpoint
CREATE INDEX "tasks_updated" ON "tasks" USING btree ("user_id","updated_at","id","created_at") WHERE "tasks"."deleted_at" is null;--> statement-breakpoint
-- By hand: PostgreSQL thinks that a tag finds many tasks, and would start workers, which takes longer than the answer.
ALTER FUNCTION "task_tag_keys"(uuid, text[]) PARALLEL UNSAFE;
