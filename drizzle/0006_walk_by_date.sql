DROP INDEX "tasks_created";--> statement-breakpoint
CREATE INDEX "tasks_created" ON "tasks" USING btree ("user_id","created_at","id","due_at") WHERE "tasks"."deleted_at" is null;