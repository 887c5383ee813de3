// What every user of the service does, with a client that a generator wrote: `flow URL`.
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	todo "github.com/GIT_USER_ID/GIT_REPO_ID"
	"golang.org/x/oauth2"
)

func expect(seen, wanted any) {
	if fmt.Sprint(seen) != fmt.Sprint(wanted) {
		panic(fmt.Sprintf("expected %v, got %v", wanted, seen))
	}
}

// The client returns an error for every status that is no success: the status is what counts here.
func status(response *http.Response) int { return response.StatusCode }

func main() {
	configuration := todo.NewConfiguration()
	configuration.Servers = todo.ServerConfigurations{{URL: os.Args[1]}}
	api := todo.NewAPIClient(configuration)
	anonymous := context.Background()
	email := fmt.Sprintf("%d@example.com", time.Now().UnixNano())
	password := "correct horse battery"

	_, response, _ := api.AuthAPI.Register(anonymous).Registration(*todo.NewRegistration(email, "short")).Execute()
	expect(status(response), 422)
	_, response, _ = api.AuthAPI.Register(anonymous).Registration(*todo.NewRegistration(email, password)).Execute()
	expect(status(response), 201)
	tokens, response, _ := api.AuthAPI.Login(anonymous).Username(email).Password(password).Execute()
	expect(status(response), 200)
	refreshed, response, _ := api.AuthAPI.Refresh(anonymous).RefreshToken(tokens.RefreshToken).Execute()
	expect(status(response), 200)
	expect(refreshed.RefreshToken == tokens.RefreshToken, false)
	source := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: refreshed.AccessToken})
	user := context.WithValue(anonymous, todo.ContextOAuth2, source)

	ids := []string{}
	for _, title := range []string{"one", "two", "three"} {
		task := todo.NewTaskCreate(title)
		task.SetDueAt(time.Date(2099, 1, 31, 18, 0, 0, 0, time.UTC))
		task.SetTags([]string{"a, b"})
		created, response, _ := api.TasksAPI.CreateTask(user).TaskCreate(*task).Execute()
		expect(status(response), 201)
		ids = append(ids, created.Id)
	}

	task, response, _ := api.TasksAPI.ReadTask(user, ids[0]).Execute()
	expect(task.Title, "one")
	etag := response.Header.Get("ETag")
	_, response, _ = api.TasksAPI.ReadTask(user, ids[0]).IfNoneMatch(etag).Execute()
	expect(status(response), 304)
	change := todo.NewTaskUpdate()
	change.SetStatus("completed")
	for _, wanted := range []int{200, 412} {
		_, response, _ = api.TasksAPI.UpdateTask(user, ids[0]).TaskUpdate(*change).IfMatch(etag).Execute()
		expect(status(response), wanted)
	}

	list := api.TasksAPI.ListTasks(user).Status([]string{"pending", "in_progress"}).Tag([]string{"a, b", "c"}).Limit(1)
	page, response, _ := list.Execute()
	expect(len(page), 1)
	expect(page[0].Id, ids[2])
	next, _ := url.Parse(strings.Trim(strings.Split(response.Header.Get("Link"), ";")[0], "<>"))
	page, response, _ = list.Cursor(next.Query().Get("cursor")).Execute()
	expect(page[0].Id, ids[1])
	expect(response.Header.Get("Link"), "")

	operations := []todo.Operation{
		todo.CreateOperationAsOperation(todo.NewCreateOperation("create", *todo.NewTaskCreate("four"))),
		todo.DeleteOperationAsOperation(todo.NewDeleteOperation("no id", "delete")),
	}
	each := todo.NewBatch(operations)
	each.SetAtomic(false)
	batch, response, err := api.TasksAPI.BatchTasks(user).Batch(*each).Execute()
	expect(err, nil)
	expect(batch.Results[0].GetStatus(), 201)
	expect(batch.Results[1].GetStatus(), 422)

	response, _ = api.TasksAPI.DeleteTask(user, ids[0]).Execute()
	expect(status(response), 204)
	_, response, _ = api.TasksAPI.ReadTask(user, ids[0]).Execute()
	expect(status(response), 404)

	for range 20 {
		_, response, _ = api.AuthAPI.Login(anonymous).Username(email).Password("wrong password").Execute()
		if status(response) != 401 {
			break
		}
	}
	expect(status(response), 429)
	expect(response.Header.Get("Retry-After") != "", true)
}
