CREATE TABLE "rate_limits" (
	"key" text PRIMARY KEY NOT NULL,
	"points" integer DEFAULT 0 NOT NULL,
	"expire" bigint
);
--> statement-breakpoint
CREATE TABLE "session_ends" (
	"session_id" uuid NOT NULL,
	"ended_at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
ALTER TABLE "users" ADD COLUMN "disabled_at" timestamp with time zone;--> statement-breakpoint
CREATE INDEX "rate_limits_expire" ON "rate_limits" USING btree ("expire");--> statement-breakpoint
CREATE INDEX "session_ends_ended_at" ON "session_ends" USING btree ("ended_at");--> statement-breakpoint
-- By hand: whatever ends a session (a sign-out, a deleted account, an operator with psql) leaves a note for every replica.
CREATE FUNCTION "note_session_ends"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO "session_ends" ("session_id", "ended_at") SELECT "id", clock_timestamp() FROM "ended";
  RETURN NULL;
END
$$;
--> statement-breakpoint
CREATE TRIGGER "sessions_ended" AFTER DELETE ON "sessions" REFERENCING OLD TABLE AS "ended"
  FOR EACH STATEMENT EXECUTE FUNCTION "note_session_ends"();
