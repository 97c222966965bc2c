// Command goclient sends a file by way of the client that oapi-codegen makes of
// api/openapi.yaml, and prints the upload once it is delivered:
//
//	goclient URL NAME FILE
//
// The client is not kept: a test generates it as package ferryapi, beside a copy
// of this folder, and builds both.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"ferry/tools/goclient/ferryapi"
)

func main() {
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "goclient:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, url, name, path string) error {
	client, err := ferryapi.NewClientWithResponses(url)
	if err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	sent, err := client.PutUploadWithBodyWithResponse(ctx, name, &ferryapi.PutUploadParams{
		Label: new([]string{"client=go"}), Mode: new("0640"), Prefer: new("wait=60"),
	}, "application/octet-stream", file)
	if err != nil {
		return err
	}
	if sent.JSON201 == nil {
		return fmt.Errorf("sending is answered with %s: %s", sent.Status(), sent.Body)
	}
	shown, err := client.GetUploadWithResponse(ctx, sent.JSON201.Id, nil)
	if err != nil {
		return err
	}
	if shown.JSON200 == nil || shown.JSON200.State != "delivered" {
		return fmt.Errorf("the upload is shown with %s: %s", shown.Status(), shown.Body)
	}
	again, err := client.HoldUploadWithResponse(ctx, sent.JSON201.Id, nil)
	if err != nil {
		return err
	}
	if p := again.ApplicationproblemJSON409; p == nil || p.Type != "/problems/state" {
		return fmt.Errorf("holding what is delivered is answered with %s: %s", again.Status(), again.Body)
	}
	return json.NewEncoder(os.Stdout).Encode(shown.JSON200)
}
