package handler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tailbox/deploy/ops"
)

// other stands for every path that is not routed and every method that HTTP does not define: a caller who makes up names
// must not make time series.
const other = "other"

type measure struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMeasure(registry prometheus.Registerer) (*measure, error) {
	m := &measure{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tailbox_api_requests_total",
			Help: "Requests answered, by route pattern and status. 499: the client went away first.",
		}, []string{"method", "route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tailbox_api_request_seconds",
			Help:    "Time from the end of a request's header to the end of its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method", "route"}),
	}
	for _, collector := range []prometheus.Collector{m.requests, m.seconds} {
		if err := registry.Register(collector); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
	http.MethodConnect, http.MethodOptions, http.MethodTrace,
}

func (m *measure) each(c *gin.Context) {
	start := time.Now()
	defer func() {
		method, route := c.Request.Method, c.FullPath()
		if !slices.Contains(methods, method) {
			method = other
		}
		if route == "" {
			route = other
		}
		m.requests.WithLabelValues(method, route, strconv.Itoa(c.Writer.Status())).Inc()
		m.seconds.WithLabelValues(method, route).Observe(time.Since(start).Seconds())
	}()
	c.Next()
}

// recovered answers 500 after a panic. What was thrown may hold a customer's data, so only its type is logged.
func (a *api) recovered(c *gin.Context) {
	defer func() {
		thrown := recover()
		if thrown == nil {
			return
		}
		if err, ok := thrown.(error); ok && errors.Is(err, http.ErrAbortHandler) { // the server ends the connection
			panic(thrown)
		}
		a.Log.Error("handler panicked", zap.String("route", c.FullPath()), zap.String("panic_type", fmt.Sprintf("%T", thrown)),
			zap.ByteString("stack", debug.Stack()))
		c.Abort()
		if !c.Writer.Written() {
			ops.WriteProblem(c.Writer, problemInternal)
		}
	}()
	c.Next()
}

// bounded limits what one request may take: time and bytes.
func (a *api) bounded(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), a.RequestTimeout)
	defer cancel()
	c.Request = c.Request.WithContext(ctx)
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, a.MaxBody)

	header := c.Writer.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	header.Set("Cache-Control", "no-store") // answers hold personal data
	c.Next()
}
