package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	echoMethod = "/tools.Echo/Echo"
	chatMethod = "/tools.Echo/Chat"
)

// The service is described by hand: its messages are protobuf's own StringValue, so nothing is generated.
func echoService(name string) *grpc.ServiceDesc {
	handler := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.StringValue)
		if err := decode(in); err != nil {
			return nil, err
		}
		from := "unknown"
		if p, ok := peer.FromContext(ctx); ok {
			from = p.Addr.String()
		}
		_ = grpc.SetHeader(ctx, metadata.Pairs("server", name, "peer", from))
		return in, nil
	}
	return &grpc.ServiceDesc{
		ServiceName: "tools.Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Echo", Handler: handler}},
		Streams: []grpc.StreamDesc{chatStream},
	}
}

// chatStream answers each message before the next one comes, for as long as the client goes on.
var chatStream = grpc.StreamDesc{
	StreamName: "Chat", ServerStreams: true, ClientStreams: true,
	Handler: func(_ any, s grpc.ServerStream) error {
		for {
			m := new(wrapperspb.StringValue)
			if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := s.SendMsg(m); err != nil {
				return err
			}
		}
	},
}

func serveGRPC(name string) (func(), error) {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", portGRPC))
	if err != nil {
		return nil, err
	}
	s := grpc.NewServer()
	s.RegisterService(echoService(name), struct{}{})
	healthpb.RegisterHealthServer(s, health.NewServer())
	go func() { _ = s.Serve(l) }()
	return s.GracefulStop, nil
}

func grpcCall(args []string) error {
	c, err := grpc.NewClient(args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, stop := context.WithTimeout(context.Background(), dialWait)
	defer stop()
	out := new(wrapperspb.StringValue)
	var header metadata.MD
	if err := c.Invoke(ctx, echoMethod, wrapperspb.String(args[1]), out, grpc.Header(&header)); err != nil {
		return err
	}
	state, err := healthpb.NewHealthClient(c).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	fmt.Println(out.GetValue(), header.Get("server"), state.GetStatus())
	return nil
}

// chatCall sends messages one after the other in one stream, each once the one before was answered, and prints how many were.
func chatCall(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	c, err := grpc.NewClient(args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, stop := context.WithTimeout(context.Background(), dialWait)
	defer stop()
	s, err := c.NewStream(ctx, &chatStream, chatMethod)
	if err != nil {
		return err
	}
	for i := range n {
		text := fmt.Sprintf("message %d", i)
		if err := s.SendMsg(wrapperspb.String(text)); err != nil {
			return err
		}
		m := new(wrapperspb.StringValue)
		if err := s.RecvMsg(m); err != nil {
			return err
		}
		if m.GetValue() != text {
			return fmt.Errorf("want %q, got %q", text, m.GetValue())
		}
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if err := s.RecvMsg(new(wrapperspb.StringValue)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream does not end: %v", err)
	}
	fmt.Println(n, "answered")
	return nil
}
