package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/coder/websocket"
)

func wsEcho(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // any origin: it is an echo
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}

func wsCall(args []string) error {
	ctx, stop := context.WithTimeout(context.Background(), dialWait)
	defer stop()
	c, _, err := websocket.Dial(ctx, args[0], nil)
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseNow() }()
	if err := c.Write(ctx, websocket.MessageText, []byte(args[1])); err != nil {
		return err
	}
	_, message, err := c.Read(ctx)
	if err != nil {
		return err
	}
	fmt.Println(string(message))
	return c.Close(websocket.StatusNormalClosure, "")
}
